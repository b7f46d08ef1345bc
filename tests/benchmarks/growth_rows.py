"""Rows as years of use would leave them, loaded with COPY. The same rows for the same counts, relative to now.

A workload has a few locks in its life, and each of those ten or so pins, one a rollout. Namespaces and package names
are of very different sizes (Zipf). Contents are 2 kB of noise, but for the newest locks, which are whole: PostgreSQL
keeps either beside the table (TOAST), so for all but the disk it is as if each had its 10 to 20 kB.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import psycopg
import tomli_w
from psycopg import sql

from resolver.domain.targets import TargetEnvironment
from storage.content import Digest
from storage.metadata.columns import to_microseconds

NAMESPACES = 200
WORKLOADS = 20_000
PACKAGES = 3_000
PACKAGES_A_LOCK = 30
WHOLE = 400
"""The newest so many locks have a content that can be read."""

_NOISE = 2_100
_WINDOW = 1_000  # locks whose pins come in turns
_EXTENDED = 50  # one pin in so many covers one more target class
_TARGETS = ["cp312-manylinux_2_28_x86_64", "cp312-manylinux_2_28_aarch64"]

_LISTED = """
    INSERT INTO lock_namespaces (namespace, lock, created)
    SELECT namespace, digest, locks.created FROM locks JOIN (
        SELECT namespace, lock FROM pins
        UNION SELECT namespace, pin_extensions.lock FROM pin_extensions JOIN pins ON id = pin
    ) AS held ON lock = digest
    ON CONFLICT DO NOTHING
"""
_NUMBERED = "SELECT setval(pg_get_serial_sequence('pins', 'id'), max(id)) FROM pins"

Row = Sequence[object]


def package(number: int) -> str:
    """The name of a package; the lower its number, the more locks have it."""
    return f"package{number:04}"


def namespace(number: int) -> str:
    """The name of a namespace; the lower its number, the more workloads are in it."""
    return f"namespace{number:03}"


def load(url: str, locks: int, pins: int) -> None:
    """Add to the database at `url`: `pins` must be a multiple of `locks`."""
    with psycopg.connect(url) as connection:
        [before] = connection.execute("SELECT coalesce(max(id), 0) FROM pins").fetchone() or [0]
        rows = _Rows(locks, pins // locks, before)
        # What the foreign keys say holds by construction; an index is made faster of all rows at once.
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
        definitions = _drop_indexes(connection)
        _copy(connection, "locks", "digest created requirements targets package_count content", rows.locks())
        _copy(connection, "lock_packages", "lock position name version created", rows.lock_packages())
        _copy(connection, "resolutions", "key lock targets at", rows.resolutions())
        _copy(connection, "workloads", "namespace workload refreshes refreshed_at seen", rows.workloads())
        _copy(connection, "pins", "id namespace workload revision key lock created stale", rows.pins())
        _copy(connection, "pin_extensions", "pin position target lock", rows.extensions())
        connection.execute(_LISTED)
        connection.execute(_NUMBERED)
        for definition in definitions:
            connection.execute(sql.SQL(definition))
    settle(url)


def settle(url: str) -> None:
    """Leave the tables as autovacuum would, given time."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def copy_some(source: str, target: str, locks: Sequence[str], pins: Sequence[tuple[str, str, str]]) -> None:
    """Bring these locks, these pins (namespace, workload, revision) and all pins of these locks over to another
    database, which has none of them."""
    with psycopg.connect(source) as here, psycopg.connect(target) as there:
        there.execute("SET LOCAL session_replication_role = replica")
        here.execute("CREATE TEMP TABLE some_locks (digest text PRIMARY KEY) ON COMMIT DROP")
        here.execute("CREATE TEMP TABLE some_pins (id bigint PRIMARY KEY) ON COMMIT DROP")
        with here.cursor() as cursor:
            cursor.executemany("INSERT INTO some_locks VALUES (%s) ON CONFLICT DO NOTHING", [[one] for one in locks])
            cursor.executemany(
                "INSERT INTO some_pins SELECT id FROM pins WHERE (namespace, workload, revision) = (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                pins,
            )
        here.execute(
            "INSERT INTO some_pins SELECT id FROM pins WHERE lock IN (TABLE some_locks)"
            " UNION SELECT pin FROM pin_extensions WHERE lock IN (TABLE some_locks) ON CONFLICT DO NOTHING"
        )
        for table, column, some in (
            ("locks", "digest", "some_locks"),
            ("lock_packages", "lock", "some_locks"),
            ("pins", "id", "some_pins"),
            ("pin_extensions", "pin", "some_pins"),
        ):
            names = (sql.Identifier(name) for name in (table, column, some))
            out = sql.SQL("COPY (SELECT * FROM {} WHERE {} IN (TABLE {})) TO STDOUT").format(*names)
            into = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
            with here.cursor().copy(out) as reading, there.cursor().copy(into) as writing:
                for block in reading:
                    writing.write(block)
        there.execute(_LISTED)
        there.execute(_NUMBERED)
    settle(target)


class _Rows:
    """Numbers count from the newest; tables are written from the oldest on, as they grow."""

    def __init__(self, locks: int, pins_a_lock: int, before: int) -> None:
        self._count = locks
        self._pins_a_lock = pins_a_lock
        self._last = before + locks * pins_a_lock
        self._now = datetime.now(UTC)
        chance = random.Random(0)
        weights = list(accumulate(1 / rank for rank in range(1, NAMESPACES + 1)))
        self._namespaces = chance.choices(range(NAMESPACES), cum_weights=weights, k=WORKLOADS)
        weights = list(accumulate(1 / rank for rank in range(1, PACKAGES + 1)))
        numbers = range(PACKAGES)
        self._packages: list[list[int]] = []
        for _ in range(locks):
            # More are drawn than needed, since those that many locks have are drawn again and again.
            drawn = dict.fromkeys(chance.choices(numbers, cum_weights=weights, k=2 * PACKAGES_A_LOCK))
            self._packages.append(sorted([*drawn][:PACKAGES_A_LOCK]))
        self._contents = [self._content(number) for number in range(min(locks, WHOLE))]
        self._digests = [self._digest(number) for number in range(locks)]

    def locks(self) -> Iterator[Row]:
        noise = random.Random(1)
        for number in reversed(range(self._count)):
            content = self._contents[number] if number < WHOLE else noise.randbytes(_NOISE)
            names = [package(one) for one in self._packages[number]]
            yield (
                self._digests[number],
                self._lock_made(number),
                json.dumps(names[:5]),
                json.dumps(_TARGETS[:1]),
                len(names),
                "\\\\x" + content.hex(),
            )

    def lock_packages(self) -> Iterator[Row]:
        for number in reversed(range(self._count)):
            for position, one in enumerate(self._packages[number]):
                yield self._digests[number], position, package(one), _version(number, one), self._lock_made(number)

    def resolutions(self) -> Iterator[Row]:
        for number in reversed(range(self._count)):
            yield self._key(number), self._digests[number], json.dumps(_TARGETS[:1]), self._lock_made(number)

    def workloads(self) -> Iterator[Row]:
        for number in range(min(WORKLOADS, self._count)):
            refreshed = self._lock_made(number)
            yield namespace(self._namespaces[number]), f"workload{number}", 1, refreshed, to_microseconds(self._now)

    def pins(self) -> Iterator[Row]:
        for number in reversed(range(self._count * self._pins_a_lock)):
            lock = self._lock_of(number)
            workload = lock % WORKLOADS
            yield (
                self._last - number,
                namespace(self._namespaces[workload]),
                f"workload{workload}",
                f"r{number}",
                self._key(lock),
                self._digests[lock],
                self._made(number, self._pins_a_lock),
                "f",
            )

    def extensions(self) -> Iterator[Row]:
        for number in reversed(range(0, self._count * self._pins_a_lock, _EXTENDED)):
            extended = self._digests[(self._lock_of(number) + 1) % self._count]
            yield self._last - number, 0, _TARGETS[1], extended

    def _lock_of(self, pin: int) -> int:
        window, place = divmod(pin, _WINDOW * self._pins_a_lock)
        first = window * _WINDOW
        return first + place % min(_WINDOW, self._count - first)

    def _made(self, number: int, a_lock: int) -> int:
        return to_microseconds(self._now - timedelta(minutes=1 + number / a_lock))

    def _lock_made(self, number: int) -> int:
        return self._made(number + _WINDOW, 1)

    def _key(self, lock: int) -> str:
        return Digest.of(b"key of %d" % lock).hex

    def _digest(self, number: int) -> str:
        return str(Digest.of(self._contents[number] if number < WHOLE else b"lock %d" % number))

    def _content(self, number: int) -> bytes:
        """In the canonical form; each package is required by one of those before it."""
        drawn = self._packages[number]
        names = [package(one) for one in drawn]
        followers: list[list[str]] = [[] for _ in drawn]
        for position in range(1, len(names)):
            followers[position // 3].append(names[position])
        target = TargetEnvironment.from_name(_TARGETS[0])
        packages = []
        for one, name, after in zip(drawn, names, followers, strict=True):
            filename = f"{name}-{_version(number, one)}-py3-none-any.whl"
            after = [other for other in after if other != name]
            wheel = {
                "name": filename,
                "upload-time": self._now,
                "url": f"https://packages.example.com/files/{filename}",
                "size": 123_456,
                "hashes": {"sha256": Digest.of(filename.encode()).hex},
            }
            packages.append(
                {
                    "name": name,
                    "version": _version(number, one),
                    "dependencies": [{"name": other} for other in after],
                    "index": "https://packages.example.com/simple",
                    "wheels": [wheel],
                    "tool": {"lockstep": {"index": "pypi", "requires": [f"{other}>=1" for other in after]}},
                }
            )
        tool = {"format": 1, "requirements": [f"{names[0]}>=1"], "targets": [target.name]}
        lock = {
            "lock-version": "1.0",
            "environments": [target.marker],
            "requires-python": f"=={target.python}.*",
            "created-by": "lockstep",
            "packages": packages,
            "tool": {"lockstep": tool},
        }
        return tomli_w.dumps(lock).encode()


def _version(lock: int, one: int) -> str:
    return f"{1 + one % 7}.{lock % 13}.{one % 5}"


def _copy(connection: psycopg.Connection, table: str, columns: str, rows: Iterable[Row]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns.split()))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with connection.cursor().copy(statement) as copy:
        for row in rows:
            copy.write("\t".join(map(str, row)) + "\n")


def _drop_indexes(connection: psycopg.Connection) -> list[str]:
    """Those that no constraint stands on; returns what makes them again."""
    found = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " JOIN pg_class ON oid = indexrelid"
        " WHERE relnamespace = 'public'::regnamespace"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"
    ).fetchall()
    for name, _ in found:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    return [definition for _, definition in found]
