"""`make bench`: Lockstep beside pip and uv, in one run on one machine, against one local mirror of the wheels.

    make bench [ARGS="--only pod,cold --set web --runs 3 --quick"]

Prints tables, writes the rows of contract.md ("Benchmarks") to `tests/benchmarks/results/latest.json`, and the chart of
the README. What falls on a machine meanwhile falls on all sides: they take turns. Quote ratios, not seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks import cold, limits
from tests.benchmarks.mirror import SET_NAMES, Mirror, cache_folder, fill
from tests.benchmarks.report import chart, console, show
from tests.benchmarks.rows import Row, absent
from tests.support.service import ROOT

RESULTS = Path(__file__).with_name("results") / "latest.json"
_MEMORY = Path("/dev/shm")
_WHOLE = 3 * 3600.0
"""Seconds that one stage may take at the most; a whole run takes about one of these hours."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all figures are measured with. `quick`: one run of each, and smaller crowds."""

    mirror: Mirror
    work: Path
    sets: Sequence[str]
    runs: int
    quick: bool


def pods(bench: Bench) -> Iterator[list[Row]]:
    """Every way into a Pod: in memory and on disk, at a link of 1 Gbit/s, under the CPU limits of small Pods."""
    from tests.benchmarks import ways

    memory = _MEMORY if _MEMORY.is_dir() else None
    best = memory or bench.work
    with ways.service(bench.mirror.url, bench.work / "pods") as service:
        here = ["--index-url", bench.mirror.url, "--service-url", service.url]
        places = [("tmpfs", memory, bench.work), ("disk", bench.work, best)]
        for place, work, elsewhere in places:
            if work is not None:
                yield _ways(bench, place, [*here, "--work", str(work), "--elsewhere", str(elsewhere)])
        short = ["--runs", "1", "--work", str(best), "--elsewhere", str(bench.work)]
        short += [word for side in ways.PLAIN for word in ("--side", side)]
        for millis in (150, 800):
            place = f"{millis}m CPU"
            # At 150m, what takes pip half a minute takes it four.
            sets = [name for name in bench.sets if name != "data" or (millis > 150 and not bench.quick)]
            try:
                with limits.cpu(millis) as prefix:
                    yield _ways(bench, place, [*here, *short], prefix, sets)
            except limits.Absent as why:
                yield [absent("pod", place, "cgroup", str(why))]
    # In a network of its own nothing of the above can be reached: there it has its own mirror and service, on the data
    # that are there.
    try:
        prefix = limits.link("1gbit")
    except limits.Absent as why:
        yield [absent("pod", "1 Gbit/s", "network", str(why))]
        return
    yield _ways(bench, "1 Gbit/s", ["--data", str(bench.work / "pods"), *short], prefix)


def _ways(
    bench: Bench, place: str, arguments: Sequence[str], prefix: Sequence[str] = (), sets: Sequence[str] | None = None
) -> list[Row]:
    """The ways, measured by a process of its own, which can be put under limits."""
    with tempfile.NamedTemporaryFile(dir=bench.work, suffix=".json") as told:
        argv = [*prefix, sys.executable, "-m", "tests.benchmarks.ways", "--place", place, "--json", told.name]
        argv += ["--runs", str(bench.runs), *arguments]
        argv += [word for name in (bench.sets if sets is None else sets) for word in ("--set", name)]
        subprocess.run(argv, cwd=ROOT, timeout=_WHOLE, check=True)
        found: list[Row] = json.loads(Path(told.name).read_text())
        return found


def colds(bench: Bench) -> Iterator[list[Row]]:
    """From a new request to a bundle."""
    yield cold.measure(bench.mirror.url, bench.work, bench.runs, bench.sets)


def serving(bench: Bench) -> Iterator[list[Row]]:
    """Answers and bytes from what is there."""
    from tests.benchmarks import serving as module

    seconds, rounds = (2, 3) if bench.quick else (5, 5)
    found = module.measure(bench.work, seconds=seconds, rounds=rounds)
    yield [asdict(row) for row in found]


def storms(bench: Bench) -> Iterator[list[Row]]:
    """Replicas that start at once, ever more of them; and large bundles."""
    from tests.benchmarks import storm

    for replicas, services in ((10, 1), (100, 1), (1000, 1), (1000, 3)):
        yield storm.measure(bench.mirror.url, bench.work, "requests", replicas, services)
    if "data" in bench.sets:
        yield storm.measure(bench.mirror.url, bench.work, "data", 20 if bench.quick else 100, 1)


def growths(bench: Bench) -> Iterator[list[Row]]:
    """More packages in a set, more locks and pins in the tables."""
    from tests.benchmarks import packages

    yield packages.measure(bench.work, bench.runs)
    try:
        from tests.benchmarks import growth
    except ImportError as why:
        yield [absent("growth", "locks stored", "PostgreSQL", str(why))]
        return
    locks = 10_000 if bench.quick else 100_000
    yield growth.run(locks, 10 * locks, runs=100, starts=5)


FIGURES: dict[str, Callable[[Bench], Iterator[list[Row]]]] = {
    "pod": pods,
    "cold": colds,
    "serving": serving,
    "storm": storms,
    "growth": growths,
}


def main() -> int:
    """Measure, print, write. 1 where a part of it failed: the rest is written all the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"of these figures, with commas between: {', '.join(FIGURES)}")
    parser.add_argument("--set", action="append", choices=SET_NAMES, dest="sets")
    parser.add_argument("--runs", type=int, help="turns of each side (default 3; with --quick, 1)")
    parser.add_argument("--quick", action="store_true", help="minutes instead of an hour: fewer turns, smaller crowds")
    parser.add_argument("--work", type=Path, help="a folder on the disk that is measured")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--chart", type=Path, help="where the chart goes (default: beside the JSON)")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [*FIGURES]
    if unknown := set(wanted) - set(FIGURES):
        parser.error(f"no such figures: {', '.join(sorted(unknown))}")
    runs = options.runs or (1 if options.quick else 3)
    failed: list[str] = []
    found: list[Row] = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.work, prefix="lockstep-bench-")))
        fill(cache_folder())
        mirror = stack.enter_context(Mirror(cache_folder()))
        bench = Bench(mirror, work, options.sets or SET_NAMES, runs, options.quick)
        for name in wanted:
            started = time.monotonic()
            try:
                for part in FIGURES[name](bench):
                    show(part, console)
                    found += part
                    _write(found, options.json)
            except Exception:
                failed.append(name)
                console.print_exception()
            console.print(f"{name}: {time.monotonic() - started:.0f} s\n")
    if any(row["bench"] == "pod" and row["median"] is not None for row in found):
        picture = options.chart or options.json.with_suffix(".png")
        chart(found, picture)
        console.print(f"chart: {picture}")
    console.print(f"rows: {options.json}")
    return 1 if failed else 0


def _write(found: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
