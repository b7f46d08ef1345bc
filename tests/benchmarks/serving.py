"""How fast the service answers from what it has, beside the least that a server could do.

    python -m tests.benchmarks.serving [--seconds 5] [--rounds 5] [--json PATH]

Real processes on loopback, asked in turn with wrk, with keep-alive:

    answers   a pinned `POST /v1/resolve`, beside a bare Starlette route with a ready-made body of the same size, asked
              for with the same request on the same server
    blobs     a large layer, beside nginx with sendfile on the same file

What the rest of the machine does meanwhile falls on both sides: figures are medians of rounds, ratios those of the same
round. The rows of what is not installed (wrk, nginx) say so and have no figures.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.index import PackageIndex
from tests.support.postgres import free_port
from tests.support.service import Service
from tests.support.wheels import make_wheel

CONNECTIONS = (1, 64, 256)
BLOB_CONNECTIONS = 8
BLOB_BYTES = 64 << 20

_BODY = {
    "requirements": "small",
    "target": {"python": "3.12", "platform": "manylinux_2_28_x86_64"},
    "workload": {"namespace": "shop", "name": "checkout", "revision": "r1"},
}
_BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
body = b"x" * int(sys.argv[2])
async def ready(request):
    return Response(body, media_type="application/json")
app = Starlette(routes=[Route("/v1/resolve", ready, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_config=None, access_log=False, server_header=False, lifespan="off")
"""
_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log stderr crit; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port}; location / {{ root {root}; }} }}
}}
"""
_SCRIPT = """
wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json"; wrk.body = [[{body}]]
done = function(summary, latency)
    local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
    io.stderr:write(string.format("%d %d %f %d %f %f", summary.requests, summary.bytes,
        summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: answers and bytes a second, latencies in milliseconds; CPU-seconds of the server, an answer."""

    rate: float
    bytes_rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """A row of contract.md, "Benchmarks"; `median` is None, and `ratio_to` says why, where a part is absent."""

    bench: str
    case: str
    side: str
    metric: str
    median: float | None
    min: float | None
    max: float | None
    runs: int
    ratio_to: dict[str, float | str]


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    url: str
    pid: int


def measure(folder: Path, *, seconds: float = 5, rounds: int = 5) -> list[Row]:
    """All of it, with what it needs in `folder`."""
    if shutil.which("wrk") is None:
        return [_absent("answers", "lockstep", "wrk"), _absent("blobs", "lockstep", "wrk")]
    with PackageIndex() as index:
        index.add(*make_wheel("small", "1.0"))
        index.add(*make_wheel("large", "1.0", files={"large/data": random.Random(1).randbytes(BLOB_BYTES)}))
        with Service(folder / "data", index_url=index.url) as service:
            return [*_answers(service, folder, seconds, rounds), *_blobs(service, folder, seconds, rounds)]


def _answers(service: Service, folder: Path, seconds: float, rounds: int) -> list[Row]:
    body = json.dumps(_BODY)
    with service.client() as client:
        for _ in range(2):
            answer = client.post("/v1/resolve", json=_BODY).raise_for_status()
    found: list[Row] = []
    with _bare(folder, len(answer.content)) as bare:
        sides = [_Side("lockstep", service.url, service.pid), bare]
        for connections in CONNECTIONS:
            loads = _in_turn(sides, "/v1/resolve", body, connections, seconds, rounds, folder)
            found += _rows(f"answers, {connections} connections", loads, ("rate", "p50", "p99", "cpu"))
    return found


def _blobs(service: Service, folder: Path, seconds: float, rounds: int) -> list[Row]:
    answer = service.resolve("large").json()
    with service.client() as client:
        manifest = client.get(f"/v1/bundles/{answer['bundle']['digest']}").json()
    digest = manifest["layers"][0]["digest"]
    path = f"/v1/blobs/{digest}"
    if shutil.which("nginx") is None:
        return [_absent("blobs", "nginx", "nginx")]
    name = digest.removeprefix("sha256:")
    root = folder / "nginx"
    (root / "v1" / "blobs").mkdir(parents=True)
    os.link(service.data / "blobs" / "blobs-v1" / "sha256" / name[:2] / name, root / "v1" / "blobs" / digest)
    with _nginx(folder, root) as nginx:
        sides = [_Side("lockstep", service.url, service.pid), nginx]
        loads = _in_turn(sides, path, None, BLOB_CONNECTIONS, seconds, rounds, folder)
    return [*_rows(f"blobs, {BLOB_CONNECTIONS} connections", loads, ("bytes_rate", "cpu"))]


def _in_turn(
    sides: Sequence[_Side],
    path: str,
    body: str | None,
    connections: int,
    seconds: float,
    rounds: int,
    folder: Path,
) -> dict[str, list[Load]]:
    for side in sides:
        _load(side, path, body, connections, 1, folder)
    loads: dict[str, list[Load]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            loads[side.name].append(_load(side, path, body, connections, seconds, folder))
    return loads


def _load(side: _Side, path: str, body: str | None, connections: int, seconds: float, folder: Path) -> Load:
    script = folder / "load.lua"
    text = _SCRIPT.replace("{body}", body or "")
    script.write_text(text if body else text.partition("done =")[1] + text.partition("done =")[2])
    before = _cpu(side.pid)
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "--latency"]
    ran = subprocess.run([*argv, "-s", str(script), side.url + path], capture_output=True, text=True, check=True)
    spent = _cpu(side.pid) - before
    requests, received, took, failed, p50, p99 = map(float, ran.stderr.split()[-6:])
    if failed or not requests:
        raise RuntimeError(f"{side.name}: {failed:g} of {requests:g} requests failed")
    return Load(requests / took, received / took, p50, p99, spent / requests)


def _cpu(pid: int) -> float:
    """CPU-seconds of the process and those children of it that live."""
    total = 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (str(pid), *children):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _rows(case: str, loads: dict[str, list[Load]], metrics: Sequence[str]) -> Iterator[Row]:
    for metric in metrics:
        figures = {side: [getattr(load, metric) for load in found] for side, found in loads.items()}
        for side, values in figures.items():
            ratios: dict[str, float | str] = {
                other: round(statistics.median(a / b for a, b in zip(values, others, strict=True) if b), 3)
                for other, others in figures.items()
                if other != side and any(others)
            }
            low, high = min(values), max(values)
            yield Row("serving", case, side, metric, statistics.median(values), low, high, len(values), ratios)


def _absent(case: str, side: str, part: str) -> Row:
    return Row("serving", case, side, "rate", None, None, None, 0, {part: "not installed"})


@contextmanager
def _bare(folder: Path, size: int) -> Iterator[_Side]:
    port = free_port()
    program = folder / "bare.py"
    program.write_text(_BARE)
    with _running([sys.executable, str(program), str(port), str(size)], port) as process:
        yield _Side("starlette", f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def _nginx(folder: Path, root: Path) -> Iterator[_Side]:
    port = free_port()
    configuration = folder / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""  # the blobs are the service's own
    configuration.write_text(_NGINX.format(folder=folder, root=root, port=port, user=user))
    with _running(["nginx", "-p", str(folder), "-c", str(configuration)], port) as process:
        yield _Side("nginx", f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def _running(argv: Sequence[str], port: int) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def table(rows: Sequence[Row]) -> str:
    """For people."""
    lines = [f"{'case':28}{'metric':12}{'side':12}{'median':>14}{'min':>14}{'max':>14}  ratio to"]
    for row in rows:
        figures = "".join(f"{'—' if each is None else f'{each:.6g}':>14}" for each in (row.median, row.min, row.max))
        ratios = ", ".join(f"{other} {ratio}" for other, ratio in row.ratio_to.items())
        lines.append(f"{row.case:28}{row.metric:12}{row.side:12}{figures}  {ratios}")
    return "\n".join(lines)


def main() -> int:
    """Run it, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--rounds", type=int, default=5, help="loads of each case on each side")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lockstep-serving-") as folder:
        rows = measure(Path(folder), seconds=options.seconds, rounds=options.rounds)
    print(table(rows))
    if options.json is not None:
        found: list[dict[str, Any]] = [asdict(row) for row in rows]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
