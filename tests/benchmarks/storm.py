"""Many replicas starting at once: what the client asks for, from a few processes that keep nothing.

    python -m tests.benchmarks.storm [--replicas 1000] [--set requests] [--services 3]

A thousand interpreters on one machine would measure the machine. So the load speaks the client's requests (resolve
with a workload, the manifest, the config, every layer; one connection a replica, all of them at once) and checks every
digest; a few real clients start among them. More than one service share a PostgreSQL, as replicas of it would; the
blobs are in one folder. `one by one` is what as many take that start one after the other, each alone: what the services
can do where nobody stands in another's way.
"""

import argparse
import asyncio
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from resolver.client.build import archive
from resolver.client.environment import target
from tests.benchmarks.mirror import SET_NAMES, SETS, Mirror, cache_folder, fill
from tests.benchmarks.report import console, show
from tests.benchmarks.rows import Row, absent, rows
from tests.benchmarks.ways import service
from tests.support.service import Service

_REAL = 4
_SECONDS = 600.0
_PAUSE = 0.2
_TRIES = 200
_CHUNK = 1 << 20


class Failed(Exception):
    """A replica did not get what it asked for."""


class _Connection:
    """HTTP/1.1 on one connection, no more than this load needs: it is to cost less than what it measures."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self.reader = asyncio.StreamReader()
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], int]:
        """Status, headers and the length of the body, which is to be read next."""
        reused = self.writer is not None
        try:
            return await self._ask(method, path, body)
        except (ConnectionError, asyncio.IncompleteReadError):
            # A crowd leaves a connection idle until the service closes it; a client then takes another one.
            if not reused:
                raise
            self.close()
            return await self._ask(method, path, body)

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], int]:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self._address, limit=_CHUNK)
        self.writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: storm\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        return int(head[0].split()[1]), headers, int(headers.get("content-length", "0"))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    async def body(self, length: int) -> bytes:
        return await self.reader.readexactly(length)

    async def digest(self, length: int) -> str:
        hasher = hashlib.sha256()
        while length:
            chunk = await self.reader.read(min(length, _CHUNK))
            if not chunk:
                raise Failed("the connection ended within a body")
            hasher.update(chunk)
            length -= len(chunk)
        return f"sha256:{hasher.hexdigest()}"


async def replica(url: str, question: bytes) -> tuple[int, int]:
    """One replica's start; returns the bytes that came, and how often it was told to come back later."""
    connection = _Connection(url)
    received = later = 0

    async def insist(method: str, path: str, body: bytes = b"") -> int:
        nonlocal later
        for _ in range(_TRIES):
            status, headers, length = await connection.ask(method, path, body)
            if status == 200:
                return length
            said = await connection.body(length)
            if status not in (202, 503):
                raise Failed(f"{path}: {status} {said[:200]!r}")
            later += 1
            if status == 202:
                method, path, body = "GET", headers["location"], b""
            await asyncio.sleep(float(headers.get("retry-after", _PAUSE)))
        raise Failed(f"{path}: told to come back {_TRIES} times")

    try:
        answer = json.loads(await connection.body(await insist("POST", "/v1/resolve", question)))
        manifest = await connection.body(await insist("GET", f"/v1/bundles/{answer['bundle']['digest']}"))
        for part in (json.loads(manifest)["config"], *json.loads(manifest)["layers"]):
            length = await insist("GET", f"/v1/blobs/{part['digest']}")
            received += length
            if await connection.digest(length) != part["digest"]:
                raise Failed(f"{part['digest']} is not what came")
    finally:
        connection.close()
    return received, later


async def _crowd(urls: Sequence[str], count: int, question: bytes) -> tuple[float, int, int, list[str]]:
    started = time.perf_counter()
    async with asyncio.timeout(_SECONDS):
        ends = await asyncio.gather(
            *(replica(urls[number % len(urls)], question) for number in range(count)), return_exceptions=True
        )
    failures = [f"{type(end).__name__}: {end}" for end in ends if isinstance(end, BaseException)]
    good = [end for end in ends if not isinstance(end, BaseException)]
    return time.perf_counter() - started, sum(b for b, _ in good), sum(n for _, n in good), failures


def _question(name: str) -> bytes:
    workload = {"namespace": "storm", "name": name, "revision": "1"}
    text = (SETS / f"{name}.txt").read_text()
    return json.dumps({"requirements": text, "target": target(), "workload": workload, "wait": 60}).encode()


def _real_client(url: str, name: str, folder: Path) -> int:
    argv = [sys.executable, "-I", "-S", str(folder / "lockstep.pyz"), "fetch", "--server", url, "-r"]
    argv += [str(SETS / f"{name}.txt"), "--target", tempfile.mkdtemp(dir=folder)]
    argv += ["--namespace", "storm", "--workload", name, "--revision", "1", "--timeout", str(_SECONDS)]
    return subprocess.run(argv, stderr=subprocess.DEVNULL, timeout=2 * _SECONDS, check=False).returncode


def measure(index_url: str, work: Path, name: str, replicas: int, services: int) -> list[Row]:
    """One storm: so many replicas, of which a few are real clients, against so many services."""
    case = f"{name}, {replicas} replicas, {services} service{'s' if services > 1 else ''}"
    with ExitStack() as stack:
        environment: dict[str, str] = {}
        if services > 1:
            try:
                from tests.support.postgres import PostgresServer

                postgres = stack.enter_context(PostgresServer())
            except ImportError as error:
                return [absent("storm", case, "PostgreSQL", str(error))]
            database = stack.enter_context(postgres.database())
            environment = {"LOCKSTEP_DATABASE_URL": postgres.url(database), "LOCKSTEP_BLOB_URL": f"{work}/blobs"}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work, prefix="storm-")))
        (folder / "lockstep.pyz").write_bytes(archive())
        started = [stack.enter_context(service(index_url, folder / str(n), environment)) for n in range(services)]
        return _storm(case, started, name, replicas, folder)


def _storm(case: str, started: Sequence[Service], name: str, replicas: int, folder: Path) -> list[Row]:
    urls, question = [each.url for each in started], _question(name)
    alone: list[float] = []
    for url in urls * 3:
        seconds, _, _, failures = asyncio.run(_crowd([url], 1, question))
        if failures:
            raise RuntimeError(f"{case}: {failures}")
        alone.append(seconds)
    alone = alone[len(urls) :]  # the first ones built it
    with ThreadPoolExecutor(_REAL) as pool:
        real = [pool.submit(_real_client, urls[n % len(urls)], name, folder) for n in range(_REAL)]
        seconds, received, later, failures = asyncio.run(_crowd(urls, replicas - _REAL, question))
        failures += [f"a client ended with {code}" for code in (each.result() for each in real) if code]
    for failure in failures[:5]:
        console.print(f"[red]{case}: {failure}[/]")
    figures = {
        "failures": len(failures),
        "told to wait": later,
        "MB/s": received / seconds / 1e6,
        "replicas/s": replicas / seconds,
        "MB peak of a service": max(_peak(each.pid) for each in started) / 1e6,
    }
    found = [row for metric, value in figures.items() for row in rows("storm", case, metric, {"lockstep": [value]})]
    return [*rows("storm", case, "total s", {"lockstep": [seconds], "one by one": [min(alone) * replicas]}), *found]


def _peak(pid: int) -> int:
    """Bytes that a process has had in memory at the most (proc(5), VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.storm")
    parser.add_argument("--set", choices=SET_NAMES, default="requests", dest="name")
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args(arguments)
    fill(cache_folder())
    with Mirror(cache_folder()) as mirror:
        show(measure(mirror.url, options.work, options.name, options.replicas, options.services), console)


if __name__ == "__main__":
    main()
