"""Cold work: from a request that nobody has made before to a bundle that is ready, beside uv doing the same by itself.

    python -m tests.benchmarks.cold [--set data] [--runs 3] [--work DIR]

uv: `uv pip compile` to a pylock.toml, then `uv pip install --compile-bytecode` of it, with one cache that is empty at
the start. Lockstep: `POST /v1/resolve` to a service that has started on empty stores, and is done with what it does
then of its own accord, until the answer names a bundle; of what uv does not do, that has in it the metadata of the
lock, the tar, its compression and its digests. Both have the wheels from the mirror. CPU is that of all their
processes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import uv

from resolver.client.environment import target
from tests.benchmarks.mirror import SET_NAMES, SETS, Mirror, cache_folder, fill
from tests.benchmarks.report import console, show
from tests.benchmarks.rows import Row, rows
from tests.support.interpreters import THIS
from tests.support.service import Service

SIDES = ("uv", "lockstep")
_SECONDS = 900
_PAUSE = 0.3
_LOOKS = 30
_TICK = os.sysconf("SC_CLK_TCK")


def by_uv(index_url: str, requirements: Path, folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of uv, in an empty folder."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "UV_CACHE_DIR": str(folder / "cache")}
    common = ["--index-url", index_url, "--only-binary", ":all:", "--no-config", "--python", sys.executable, "--quiet"]
    lock, tree = folder / "pylock.toml", folder / "tree"
    compiling = ["pip", "compile", str(requirements), "--format", "pylock.toml", "-o", str(lock)]
    installing = ["pip", "install", "-r", str(lock), "--target", str(tree), "--compile-bytecode"]
    before, started = os.times(), time.perf_counter()
    for argv in (compiling, installing):
        subprocess.run(
            [uv.find_uv_bin(), *argv, *common], env=environment, stdout=subprocess.DEVNULL, timeout=_SECONDS, check=True
        )
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu


def by_lockstep(index_url: str, requirements: Path, folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a service, on stores in an empty folder."""
    with Service(folder / "data", index_url=index_url, flags=("--interpreter", f"{THIS}={sys.executable}")) as service:
        with service.client(_SECONDS) as client:
            client.get("/healthz")
            _at_rest(service.pid)
            body = {"requirements": requirements.read_text(), "target": target(), "wait": 300}
            before, started = cpu_of(service.pid), time.perf_counter()
            answer = client.post("/v1/resolve", json=body).json()
        wall, cpu = time.perf_counter() - started, cpu_of(service.pid) - before
        if "bundle" not in answer or any(warning["code"] == "no-bytecode" for warning in answer["warnings"]):
            raise RuntimeError(f"no bundle with byte-code: {answer}")
        return wall, cpu


def _at_rest(pid: int) -> None:
    """Wait until the process and its descendants have nothing to do, or seem never to."""
    before = -1.0
    for _ in range(_LOOKS):
        now = cpu_of(pid)
        if now == before:
            return
        before = now
        time.sleep(_PAUSE)


def cpu_of(pid: int) -> float:
    """Seconds that a process and its descendants have used, those that have ended included (proc(5), `stat`)."""
    stats = dict(_stats())
    children = defaultdict(list)
    for each, fields in stats.items():
        children[int(fields[1])].append(each)
    ticks, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        ticks += sum(map(int, stats[one][11:15]))
        waiting += children[one]
    return ticks / _TICK


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Every process, and the fields after its name, which may hold anything."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue


def measure(index_url: str, work: Path, runs: int = 3, sets: Iterable[str] = SET_NAMES) -> list[Row]:
    """Both sides in turn for each set, after one turn that is not counted."""
    found: list[Row] = []
    for name in sets:
        walls: dict[str, list[float]] = {side: [] for side in SIDES}
        cpus: dict[str, list[float]] = {side: [] for side in SIDES}
        for turn in range(runs + 1):
            for side, run in zip(SIDES, (by_uv, by_lockstep), strict=True):
                with tempfile.TemporaryDirectory(dir=work, prefix="cold-") as folder:
                    wall, cpu = run(index_url, SETS / f"{name}.txt", Path(folder))
                if turn:
                    walls[side].append(wall)
                    cpus[side].append(cpu)
        found += rows("cold", name, "wall s", walls) + rows("cold", name, "CPU s", cpus)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cold")
    parser.add_argument("--set", action="append", choices=SET_NAMES, dest="sets")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args(arguments)
    fill(cache_folder())
    with Mirror(cache_folder()) as mirror:
        show(measure(mirror.url, options.work, options.runs, options.sets or SET_NAMES), console)


if __name__ == "__main__":
    main()
