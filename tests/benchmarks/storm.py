"""Many replicas starting at once: what the client asks for, from a few processes that keep nothing.

    python -m tests.benchmarks.storm [--replicas 1000] [--set requests] [--services 3]

A thousand interpreters on one machine would measure the machine. So the load speaks the client's requests (resolve
with a workload, the manifest, the config, every layer; one connection a replica, all of them at once) and checks every
digest. A few real clients start among them, with the CPU that the others leave: a Pod unpacks on its own, not on the
service's. More than one service share a PostgreSQL, as replicas of it would; the blobs are in one folder.

`serving rates` is the time that the rates measured in the same run allow: each request of a replica's is asked for
again and again on as many open connections as there are replicas, by the same load with the same checks, on the same
services; before the storm and after it. What one such request takes of that, for each request of each replica, summed
up, is what the storm would take if starting all at once cost nothing: no connection to open, no blob that another
replica does not ask for at that moment, nobody told to come back later.
"""

import argparse
import asyncio
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
from tests.benchmarks.load import Connection, Failed, request, run
from tests.benchmarks.mirror import SET_NAMES, SETS, Mirror, cache_folder, fill
from tests.benchmarks.report import console, show
from tests.benchmarks.rows import Row, absent, rows
from tests.benchmarks.ways import service
from tests.support.service import Service

_REAL = 4
_SECONDS = 600.0
_PAUSE = 0.2
_TRIES = 200
_STEP = 0.1
_WINDOW = 1.5


class Replica:
    """One replica's start. `later`: how often it was told to come back; `parts`: the paths of what it fetched."""

    def __init__(self, url: str, question: bytes) -> None:
        self._connection = Connection(url)
        self._question = question
        self.parts: list[str] = []
        self.later = 0

    async def start(self) -> None:
        """All that a client asks for. Raises Failed."""
        try:
            answer = json.loads(await self._ask("POST", "/v1/resolve", self._question))
            manifest = json.loads(await self._part(f"/v1/bundles/{answer['bundle']['digest']}", keep=True))
            for part in (manifest["config"], *manifest["layers"]):
                await self._part(f"/v1/blobs/{part['digest']}")
        finally:
            self._connection.close()

    @property
    def received(self) -> int:
        """Bytes that came."""
        return self._connection.received

    async def _part(self, path: str, *, keep: bool = False) -> bytes:
        self.parts.append(path)
        return await self._ask("GET", path, keep=keep)

    async def _ask(self, method: str, path: str, content: bytes = b"", *, keep: bool = True) -> bytes:
        for _ in range(_TRIES):
            answer = await self._connection.ask(request(method, path, content), keep=keep)
            if answer.status == 200:
                if not keep and not path.endswith(answer.digest):
                    raise Failed(f"{answer.digest} came as {path}")
                return answer.content
            if answer.status not in (202, 503):
                raise Failed(f"{path}: {answer.status}")
            self.later += 1
            if answer.status == 202:
                method, path, content = "GET", answer.headers["location"], b""
            await asyncio.sleep(float(answer.headers.get("retry-after", _PAUSE)))
        raise Failed(f"{path}: told to come back {_TRIES} times")


async def _crowd(urls: Sequence[str], count: int, question: bytes) -> tuple[float, list[Replica], list[str]]:
    replicas = [Replica(urls[number % len(urls)], question) for number in range(count)]
    started = time.perf_counter()
    async with asyncio.timeout(_SECONDS):
        ends = await asyncio.gather(*(each.start() for each in replicas), return_exceptions=True)
    failures = [f"{type(end).__name__}: {end}" for end in ends if end is not None]
    return time.perf_counter() - started, replicas, failures


async def _allowed(urls: Sequence[str], count: int, question: bytes, parts: Sequence[str]) -> float:
    """Seconds that so many replicas take at the rates at which each of their requests alone is served."""
    requests = [request("POST", "/v1/resolve", question), *(request("GET", part) for part in parts)]
    return count * sum([await _seconds(urls, count, each) for each in requests])


async def _seconds(urls: Sequence[str], count: int, asked: bytes) -> float:
    """Seconds for one such request, where so many connections ask for it again and again."""
    connections = [Connection(urls[number % len(urls)]) for number in range(count)]
    lengths: set[int] = set()

    async def again_and_again(connection: Connection) -> None:
        while True:
            before = connection.received
            answer = await connection.ask(asked)
            if answer.status == 200:
                lengths.add(connection.received - before)
            else:
                connection.received = before
                await asyncio.sleep(float(answer.headers["retry-after"]))

    tasks = [asyncio.create_task(again_and_again(connection)) for connection in connections]
    try:
        while not all(each.received for each in connections) and not any(task.done() for task in tasks):
            await asyncio.sleep(_STEP)
        before, started = sum(each.received for each in connections), time.perf_counter()
        await asyncio.sleep(_WINDOW)
        received = sum(each.received for each in connections) - before
        took = time.perf_counter() - started
        while not lengths and not any(task.done() for task in tasks):  # one that takes longer than that
            await asyncio.sleep(_STEP)
        failures = [task.exception() for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in connections:
            connection.close()
    if failures:
        raise RuntimeError(f"{asked[:100]!r} cannot be measured") from failures[0]
    return took * max(lengths) / received


def _question(name: str) -> bytes:
    workload = {"namespace": "storm", "name": name, "revision": "1"}
    text = (SETS / f"{name}.txt").read_text()
    return json.dumps({"requirements": text, "target": target(), "workload": workload, "wait": 60}).encode()


def _real_client(url: str, name: str, folder: Path) -> int:
    argv = [
        "nice",
        "-n",
        "19",
        sys.executable,
        "-I",
        "-S",
        str(folder / "lockstep.pyz"),
        "fetch",
        "--server",
        url,
        "-r",
    ]
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
    urls, question, crowd = [each.url for each in started], _question(name), replicas - _REAL
    parts: list[str] = []
    for url in urls * 2:  # the first one builds it
        _, (alone,), failures = run(_crowd([url], 1, question))
        if failures:
            raise RuntimeError(f"{case}: {failures}")
        parts = alone.parts
    before = run(_allowed(urls, crowd, question, parts))
    with ThreadPoolExecutor(_REAL) as pool:
        real = [pool.submit(_real_client, urls[n % len(urls)], name, folder) for n in range(_REAL)]
        seconds, ended, failures = run(_crowd(urls, crowd, question))
        failures += [f"a client ended with {code}" for code in (each.result() for each in real) if code]
    allowed = [before, run(_allowed(urls, crowd, question, parts))]
    for failure in failures[:5]:
        console.print(f"[red]{case}: {failure}[/]")
    figures = {
        "failures": len(failures),
        "told to wait": sum(each.later for each in ended),
        "MB/s": sum(each.received for each in ended) / seconds / 1e6,
        "replicas/s": crowd / seconds,
        "MB peak of a service": max(_peak(each.pid) for each in started) / 1e6,
    }
    found = [row for metric, value in figures.items() for row in rows("storm", case, metric, {"lockstep": [value]})]
    return [*rows("storm", case, "total s", {"lockstep": [seconds], "serving rates": allowed}), *found]


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
