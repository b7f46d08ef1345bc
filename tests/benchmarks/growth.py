"""Whether answers stay as quick as they were, with 100,000 locks and 1,000,000 pins in PostgreSQL.

    python -m tests.benchmarks.growth [--locks 100000 --pins 1000000] [--json PATH]

Three real services with a database each, on one real PostgreSQL, asked in turn over HTTP with keep-alive:

    empty    40 pinned workloads, which a service resolved and pinned; the other two have them as well
    page     besides, just the rows that the answers below are made of: its answers are the loaded one's to the byte
    loaded   besides, all the rows

`loaded` to `page` tells what the size of the tables costs; `loaded` to `empty` has in it what an answer with 25 items
costs over one with few. The exit code is 1 where an answer takes more than twice its time on `page`, or, if `empty` is
asked for it too, on `empty`.
"""

import argparse
import asyncio
import http.client
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from storage.metadata.columns import from_microseconds
from storage.metadata.cursors import write_cursor
from storage.metadata.store import SqlMetadataStore
from tests.benchmarks import growth_rows as rows
from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.wheels import make_wheel

BOUND = 2.0
PINNED = 40
PAGE = 25  # what the service gives to who names no limit

Ask = tuple[str, str, bytes | None]  # method, path, body
Times = dict[str, list[float]]


class Side:
    """A service on a database of its own, and a connection to it."""

    def __init__(self, name: str, postgres: PostgresServer, database: str, data: Path, index_url: str) -> None:
        self.name = name
        self.database = database
        environment = {
            "LOCKSTEP_DATABASE_URL": postgres.url(database),
            "LOCKSTEP_GC_EVERY": "0",
        }
        self._service = Service(data, index_url=index_url, environment=environment)
        self._connection: http.client.HTTPConnection | None = None

    def start(self) -> None:
        """A new process."""
        self.stop()
        self._service.start()
        self._connection = http.client.HTTPConnection(self._service.url.removeprefix("http://"), timeout=60)
        self._connection.connect()

    def reconnect(self) -> None:
        """Leave a connection that the service closes before long, since nothing was asked for a while."""
        assert self._connection is not None
        self._connection.close()
        self._connection.connect()

    def stop(self) -> None:
        """The end of the process, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._service.stop()

    def ask(self, ask: Ask) -> tuple[float, bytes]:
        """Milliseconds, and the answer."""
        assert self._connection is not None
        method, path, body = ask
        started = time.perf_counter()
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self._connection.getresponse()
        content = answer.read()
        taken = (time.perf_counter() - started) * 1000
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: {method} {path}: {answer.status} {content.decode()[:500]}")
        return taken, content


def pinned(number: int) -> Ask:
    """The request of one replica of a pinned workload."""
    body = {
        "requirements": "small",
        "target": {"python": "3.12", "platform": "manylinux_2_28_x86_64"},
        "workload": {"namespace": rows.namespace(number % 5), "name": f"asking{number}", "revision": "r1"},
    }
    return "POST", "/v1/resolve", json.dumps(body).encode()


def lists(postgres: PostgresServer, database: str) -> dict[str, Ask]:
    """The lists, and deep in them: half of the rows are newer."""
    common, rare = rows.package(0), rows.package(rows.PACKAGES - 1)
    large, small = rows.namespace(0), rows.namespace(rows.NAMESPACES - 1)
    locks, pins = _deep(postgres, database, "locks", "digest"), _deep(postgres, database, "pins", "id")
    return {
        "GET /v1/locks": _get(f"/v1/locks?limit={PAGE}"),
        "GET /v1/locks?package= (common)": _get(f"/v1/locks?limit={PAGE}&package={common}"),
        "GET /v1/locks?package= (rare)": _get(f"/v1/locks?limit={PAGE}&package={rare}"),
        "GET /v1/locks?namespace= (large)": _get(f"/v1/locks?limit={PAGE}&namespace={large}"),
        "GET /v1/locks?namespace= (small)": _get(f"/v1/locks?limit={PAGE}&namespace={small}"),
        "GET /v1/locks?package=&namespace=": _get(f"/v1/locks?limit={PAGE}&package={rare}&namespace={large}"),
        "GET /v1/locks?cursor= (deep)": _get(f"/v1/locks?limit={PAGE}&cursor={locks}"),
        "GET /v1/locks?package=&cursor= (deep)": _get(f"/v1/locks?limit={PAGE}&package={common}&cursor={locks}"),
        "GET /v1/locks?namespace=&cursor= (deep)": _get(f"/v1/locks?limit={PAGE}&namespace={large}&cursor={locks}"),
        "GET /v1/pins": _get(f"/v1/pins?limit={PAGE}"),
        "GET /v1/pins?namespace= (large)": _get(f"/v1/pins?limit={PAGE}&namespace={large}"),
        "GET /v1/pins?namespace= (small)": _get(f"/v1/pins?limit={PAGE}&namespace={small}"),
        "GET /v1/pins?cursor= (deep)": _get(f"/v1/pins?limit={PAGE}&cursor={pins}"),
        "GET /v1/pins?namespace=&cursor= (deep)": _get(f"/v1/pins?limit={PAGE}&namespace={large}&cursor={pins}"),
    }


def whole(postgres: PostgresServer, database: str) -> list[tuple[str, str]]:
    """The digests of locks that can be read, each with its last package."""
    found = postgres.execute(
        "SELECT digest, (SELECT name FROM lock_packages WHERE lock = digest ORDER BY position DESC LIMIT 1)"
        f" FROM locks WHERE package_count > 1 ORDER BY created DESC LIMIT {rows.WHOLE}",
        database,
    )
    return [(str(digest), str(name)) for digest, name in found]


def _deep(postgres: PostgresServer, database: str, table: str, identity: str) -> str:
    [(created, last)] = postgres.execute(
        f"SELECT created, {identity} FROM {table} ORDER BY created DESC, {identity} DESC"
        f" OFFSET (SELECT count(*) / 2 FROM {table}) LIMIT 1",
        database,
    )
    return write_cursor(from_microseconds(created), last)


def _get(path: str) -> Ask:
    return "GET", path, None


def copy_shown(postgres: PostgresServer, loaded: Side, page: Side, shown: Sequence[Ask], besides: list[str]) -> None:
    """Give `page` the rows that these answers of `loaded` are made of, and those of one item behind each page."""
    loaded.reconnect()
    locks, pins = set(besides), set[tuple[str, str, str]]()
    for method, path, body in shown:
        longer = path.replace(f"limit={PAGE}", f"limit={PAGE + 1}")
        for item in json.loads(loaded.ask((method, longer, body))[1])["items"]:
            locks.add(item["digest"] if "digest" in item else item["lock"])
            if "lock" in item:
                pins.add((item["namespace"], item["workload"], item["revision"]))
    there = {str(digest) for [digest] in postgres.execute("SELECT digest FROM locks", page.database)}
    mine = sorted(pin for pin in pins if not pin[1].startswith("asking"))
    rows.copy_some(postgres.url(loaded.database), postgres.url(page.database), sorted(locks - there), mine)


def measure(sides: Sequence[Side], asks: Sequence[Ask], runs: int) -> Times:
    """Milliseconds of each request on each side, after a warm-up, the sides in turn."""
    for side in sides:
        side.reconnect()
    for ask in asks:
        for side in sides:
            side.ask(ask)
    times: Times = {side.name: [] for side in sides}
    for ask in islice(cycle(asks), runs):
        for side in sides:
            times[side.name].append(side.ask(ask)[0])
    return times


def measure_first(sides: Sequence[Side], starts: int) -> Times:
    """Milliseconds of the first request that a process answers."""
    times: Times = {side.name: [] for side in sides}
    for number in range(starts):
        for side in sides:
            side.start()
            times[side.name].append(side.ask(pinned(number % PINNED))[0])
    return times


def results(case: str, times: Times) -> list[dict[str, Any]]:
    """The rows of contract.md, "Benchmarks"."""
    medians = {side: statistics.median(taken) for side, taken in times.items()}
    return [
        {
            "bench": "growth",
            "case": case,
            "side": side,
            "metric": "ms",
            "median": round(medians[side], 3),
            "min": round(min(taken), 3),
            "max": round(max(taken), 3),
            "runs": len(taken),
            "ratio_to": {other: round(medians[side] / medians[other], 2) for other in times if other != side},
        }
        for side, taken in times.items()
    ]


def table(found: Sequence[dict[str, Any]]) -> str:
    """For people."""
    lines = [f"{'ms: median (min … max)':40}{'empty':>24}{'page':>24}{'loaded':>24}  to page  to empty"]
    for case in dict.fromkeys(row["case"] for row in found):
        sides = {row["side"]: row for row in found if row["case"] == case}
        cells = "".join(_cell(sides.get(side)) for side in ("empty", "page", "loaded"))
        ratios = sides["loaded"]["ratio_to"]
        lines.append(f"{case:40}{cells}{ratios.get('page', ''):>9}{ratios.get('empty', ''):>10}")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    text = "" if row is None else f"{row['median']:.2f} ({row['min']:.1f} … {row['max']:.0f})"
    return f"{text:>24}"


def run(locks: int, pins: int, runs: int, starts: int) -> list[dict[str, Any]]:
    """All of it; the rows of contract.md."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lockstep-growth-")))
        postgres = stack.enter_context(PostgresServer())
        index = stack.enter_context(PackageIndex())
        index.add(*make_wheel("small", "1.0"))

        def side(name: str, database: str) -> Side:
            made = Side(name, postgres, database, folder / name, index.url)
            stack.callback(made.stop)
            return made

        first = side("first", stack.enter_context(postgres.database()))
        asyncio.run(SqlMetadataStore.migrate(postgres.url(first.database)))
        first.start()
        for number in range(PINNED):
            first.ask(pinned(number))
        first.stop()
        sides = []
        for name in ("empty", "page", "loaded"):
            shutil.copytree(folder / "first", folder / name)
            sides.append(side(name, stack.enter_context(postgres.database(template=first.database))))
            rows.settle(postgres.url(sides[-1].database))
        empty, page, loaded = sides

        started = time.monotonic()
        rows.load(postgres.url(loaded.database), locks, pins)
        print(f"{locks} locks and {pins} pins loaded in {time.monotonic() - started:.0f} s", file=sys.stderr)
        loaded.start()
        listed = lists(postgres, loaded.database)
        readable = whole(postgres, loaded.database)
        digests = [digest for digest, _ in readable]
        copy_shown(postgres, loaded, page, [*listed.values()], digests)
        page.start()
        empty.start()

        both = page, loaded
        diffs = [_get(f"/v1/locks/{a}/diff/{b}") for a, b in pairwise(digests)]
        reasons = [_get(f"/v1/locks/{digest}/why/{package}") for digest, package in readable]
        cases: dict[str, tuple[Sequence[Side], list[Ask]]] = {
            "POST /v1/resolve, pinned": (sides, [pinned(number) for number in range(PINNED)]),
            **{name: (sides, [ask]) for name, ask in listed.items()},
            "GET /v1/locks/{digest}": (both, [_get(f"/v1/locks/{digest}") for digest in digests]),
            "GET /v1/locks/{a}/diff/{b}": (both, diffs),
            "GET /v1/locks/{digest}/why/{package}": (both, reasons),
        }
        found: list[dict[str, Any]] = []
        for case, (asked, asks) in cases.items():
            for one in both:
                one.reconnect()
            for ask in asks[:PINNED]:
                if page.ask(ask)[1] != loaded.ask(ask)[1]:
                    raise RuntimeError(f"{case}: the two sides answer differently: {ask[1]}")
            found += results(case, measure(asked, asks, runs))
        return found + results("POST /v1/resolve, pinned, first", measure_first((empty, page, loaded), starts))


def main() -> int:
    """Run it, print the table, write the JSON; 1 where the bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--locks", type=int, default=100_000)
    parser.add_argument("--pins", type=int, default=1_000_000, help="a multiple of the locks")
    parser.add_argument("--runs", type=int, default=200, help="requests of each case on each side")
    parser.add_argument("--starts", type=int, default=10, help="processes started on each side")
    parser.add_argument("--json", type=Path, help="write the results there as well")
    options = parser.parse_args()
    if options.locks < 1 or options.pins < 1 or options.pins % options.locks:
        parser.error("--pins must be a multiple of --locks")
    found = run(options.locks, options.pins, options.runs, options.starts)
    print(table(found))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    slow = [row["case"] for row in found if row["side"] == "loaded" and max(row["ratio_to"].values()) > BOUND]
    print(f"over {BOUND}×: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
