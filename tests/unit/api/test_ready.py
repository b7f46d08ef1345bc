"""Ready-made answers: how often the database is looked at for one, and what ends it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from resolver.api.ready import Ready
from resolver.domain.identity import ANYONE, Caller
from resolver.domain.keys import resolution_key
from resolver.domain.requests import ResolveRequest, Workload
from resolver.domain.requirements import parse_requirements
from resolver.service.asked import Asked
from resolver.service.pinned import Pinned
from resolver.service.requests import Requests
from resolver.service.uses import Uses
from storage.content import Digest
from storage.metadata.store import SqlMetadataStore
from storage.records import BundleRecord, LockRecord, PinRecord
from tests.unit.service.parts import INDEX, TARGET, lock_of
from tests.unit.storage.queries import statements

SCOPE = ANYONE.scope
BODY = b"the bytes of a request"
CONTENT = b"the bytes of its answer"
LOCK = lock_of("small")
NOW = datetime.now(UTC)
BUNDLE = BundleRecord(LOCK.digest, TARGET.name, "t1", Digest.of(b"bundle"), 1, 2, NOW)
NAMED = ResolveRequest(
    parse_requirements("small", field="requirements"), TARGET, (INDEX,), workload=Workload("shop", "checkout", "r1")
)
ANSWER: dict[str, Any] = {
    "lock": {"digest": LOCK.digest},
    "bundle": {"digest": BUNDLE.digest},
    "outcome": "pinned",
    "pin": {"namespace": "shop", "workload": "checkout", "revision": "r1"},
}
UNNAMED = replace(NAMED, workload=Workload("shop", "checkout"))


class Bench:
    """Ready-made answers over a database in which a workload is pinned, with a clock to turn."""

    def __init__(self, store: SqlMetadataStore) -> None:
        self.store = store
        self.time = 0.0
        self.counted = 0
        self.asked = Asked(store.asked, Requests([INDEX]), [], every=3600)
        self.uses = Uses(store.artifacts, store.workloads, every=timedelta(minutes=15), forgotten=timedelta(hours=1))
        pinned = Pinned(store.pins, self.uses, lambda _: "t1")
        self.ready = Ready(pinned, self.asked, self._count, stands=1.0, clock=lambda: self.time)

    async def pin(self, revision: str) -> None:
        await self.store.locks.add(LockRecord(LOCK.digest, NOW, (), (TARGET.name,), 1, LOCK.content, ()))
        key = resolution_key(NAMED, [])
        await self.store.pins.add(PinRecord("shop", "checkout", revision, key, LOCK.digest, NOW))
        await self.store.artifacts.add_bundle(BUNDLE, await self.store.contents.claim([BUNDLE.digest]))
        await self.uses.see("shop", "checkout")
        self.uses.found(BUNDLE.digest)

    def remember(self, request: ResolveRequest, revision: str, body: bytes = BODY, **fields: Any) -> None:
        answer = {**ANSWER, "pin": {**ANSWER["pin"], "revision": revision}, **fields}
        self.ready.remember(body, SCOPE, request, answer, CONTENT)

    async def ask(self, body: bytes = BODY, scope: bytes = SCOPE) -> tuple[bytes | None, int]:
        """The answer, if it was ready-made; and how many reads of the database it took."""
        with statements() as seen:
            found = await self.ready.find(body, scope)
        return found.content if found else None, sum(statement.startswith("SELECT") for statement, _ in seen)

    async def looked(self) -> None:
        """Until no look is under way."""
        while len(self.ready.looking):
            await asyncio.sleep(0.001)

    def _count(self) -> None:
        self.counted += 1


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
    bench = Bench(store)
    yield bench
    await bench.ready.close()
    await bench.uses.close()
    await bench.asked.close()
    await store.close()


async def test_a_revision_is_looked_at_once_a_second(bench: Bench) -> None:
    await bench.pin("r1")
    assert await bench.ask() == (None, 0)
    bench.remember(NAMED, "r1")
    assert [await bench.ask() for _ in range(3)] == [(CONTENT, 1), (CONTENT, 0), (CONTENT, 0)]
    bench.time = 1.0
    with statements() as seen:
        assert await bench.ask() == (CONTENT, 0), "it is looked at, and nobody waits for that"
        assert await bench.ask() == (CONTENT, 0)
        await bench.looked()
    assert sum(statement.startswith("SELECT") for statement, _ in seen) == 1
    bench.time = 2.9
    assert await bench.ask() == (CONTENT, 0)
    await bench.looked()
    bench.time = 4.9
    assert [await bench.ask() for _ in range(2)] == [(CONTENT, 1), (CONTENT, 0)], "too long ago"
    assert bench.counted == 8


async def test_an_answer_is_for_callers_who_speak_for_the_same_namespaces(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1")
    pods = [Caller(name, namespaces=frozenset(["shop"])) for name in ("one", "two")]
    bank, both = (Caller("other", namespaces=frozenset(each)) for each in (["bank"], ["shop", "bank"]))
    for caller in (*pods, bank, both):
        assert await bench.ask(scope=caller.scope) == (None, 0)
    bench.ready.remember(BODY, pods[0].scope, NAMED, ANSWER, CONTENT)
    assert await bench.ask(scope=pods[1].scope) == (CONTENT, 1)
    for caller in (bank, both):
        assert await bench.ask(scope=caller.scope) == (None, 0)
    assert await bench.ask(scope=Caller("ada", operator=True).scope) == (CONTENT, 1)


async def test_a_workload_without_revisions_is_looked_at_each_time_and_moves_on_with_a_refresh(bench: Bench) -> None:
    await bench.pin("@refresh-0")
    bench.remember(UNNAMED, "@refresh-0")
    assert [await bench.ask() for _ in range(2)] == [(CONTENT, 1), (CONTENT, 1)]
    await bench.store.workloads.refresh("shop", "checkout", NOW)
    assert await bench.ask() == (None, 1)
    assert await bench.ask() == (None, 0), "it is forgotten"


async def test_a_refresh_leaves_a_named_revision_as_it_is(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1")
    await bench.store.workloads.refresh("shop", "checkout", NOW)
    assert await bench.ask() == (CONTENT, 1)


async def test_a_bundle_that_was_dropped_ends_it(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1")
    assert await bench.ask() == (CONTENT, 1)
    async with bench.store.contents.dropping(BUNDLE.digest):
        pass
    bench.time = 1.0
    assert await bench.ask() == (CONTENT, 0)
    await bench.looked()
    assert await bench.ask() == (None, 0), "the look under way found out"


async def test_an_answer_is_given_no_longer_than_two_seconds_without_a_look(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1")
    assert await bench.ask() == (CONTENT, 1)
    async with bench.store.contents.dropping(BUNDLE.digest):
        pass
    bench.time = 2.0
    assert await bench.ask() == (None, 1)


async def test_a_workload_that_was_forgotten_ends_it(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1")
    assert await bench.store.workloads.forget("shop", "checkout", datetime.now(UTC) + timedelta(hours=1))
    assert await bench.ask() == (None, 1)


async def test_what_was_mended_here_ends_it_at_once(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1")
    assert await bench.ask() == (CONTENT, 1)
    bench.ready.clear()
    assert await bench.ask() == (None, 0)


async def test_only_answers_of_pins_are_kept(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1", outcome="resolved")
    assert await bench.ask() == (None, 0)


async def test_what_is_kept_is_bounded(bench: Bench) -> None:
    await bench.pin("r1")
    for number in range(4100):
        bench.remember(NAMED, "r1", b"%d" % number)
    assert await bench.ask(b"3") == (None, 0)
    assert await bench.ask(b"4") == (CONTENT, 1)
    bench.remember(NAMED, "r1", b"x" * 100_000)
    assert await bench.ask(b"x" * 100_000) == (None, 0), "a request of that size is not kept"


async def test_what_was_answered_is_counted_as_asked_for(bench: Bench) -> None:
    await bench.pin("r1")
    bench.remember(NAMED, "r1")
    for _ in range(7):
        await bench.ask()
    await bench.ready.close()
    await bench.asked.close()
    [record] = await bench.store.asked.most(NOW - timedelta(days=1), 10)
    assert (record.key, record.times) == (resolution_key(NAMED, []), 7)
