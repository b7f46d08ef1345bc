"""What is remembered of requests: enough to ask them again, never a credential, never without bound."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from resolver.domain.keys import resolution_key
from resolver.domain.requests import Index, Policy, ResolveRequest, Workload
from resolver.domain.targets import TargetEnvironment
from resolver.service import asked as module
from resolver.service.asked import Asked, Recent
from resolver.service.requests import Requests
from storage.errors import StorageUnavailable
from storage.metadata.store import SqlMetadataStore
from storage.protocols import AskedStore
from storage.records import AskedRecord

PLATFORMS = ["manylinux_2_28_aarch64"]
MUSL = TargetEnvironment.from_platform("3.12", "musllinux_1_2_x86_64")
OPEN = Index("open", "https://me:hunter2@packages.example.com/simple?token=hunter2")
CLOSED = Index("closed", "https://packages.example.com/closed", frozenset({"shop"}))
REQUESTS = Requests([CLOSED, OPEN])
EVER = Recent(days=1, limit=100)
NEVER = 3600.0  # seconds between writes: in these tests nothing is written before its time
HASH = "a" * 64


def request(requirements: str = "requests>=2", namespace: str | None = None, **fields: object) -> ResolveRequest:
    values: dict[str, object] = {
        "requirements": requirements,
        "constraints": None,
        "target": MUSL,
        "indexes": None,
        "policy": Policy(),
        "workload": Workload(namespace, "checkout", "r1") if namespace else None,
    }
    return REQUESTS.parse(**{**values, **fields})  # type: ignore[arg-type] # fields of any kind, checked by parse


def keys(requests: Collection[ResolveRequest]) -> list[tuple[str, str]]:
    return [(resolution_key(each, PLATFORMS), each.target.name) for each in requests]


@pytest.fixture
async def metadata(tmp_path: Path) -> AsyncIterator[SqlMetadataStore]:
    store = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
    yield store
    await store.close()


@pytest.fixture
async def asked(metadata: SqlMetadataStore) -> AsyncIterator[Asked]:
    counting = Asked(metadata.asked, REQUESTS, PLATFORMS, every=NEVER)
    yield counting
    await counting.close()


@pytest.mark.parametrize(
    "one",
    [
        request(),
        request("", "shop"),
        request(f"B_b [Z,a] == 1.0 ; 'linux' in sys_platform  --hash=sha256:{HASH}\n\n# c\na!=1,>0", "elsewhere"),
        request(constraints=["urllib3<3 ; python_version < '3.13'"], indexes=["open"]),
        request(policy=Policy(True, datetime(2026, 11, 1, 7, tzinfo=UTC))),
        request(namespace="shop", indexes=["open", "closed"]),
    ],
    ids=["plain", "empty", "markers", "constraints", "policy", "closed"],
)
async def test_what_is_asked_again_is_the_same_question(asked: Asked, one: ResolveRequest) -> None:
    asked.count(one)
    found = await asked.most(EVER, [])
    assert keys(found) == keys([one])
    assert found[0].indexes == one.indexes
    assert found[0].workload is None


async def test_no_credential_is_kept(asked: Asked, metadata: SqlMetadataStore) -> None:
    asked.count(request(namespace="shop"))
    await asked.most(EVER, [])
    [record] = await metadata.asked.most(datetime.now(UTC) - timedelta(days=1), 10)
    assert record.request["indexes"] == ["closed", "open"]
    assert "hunter2" not in repr(record)


async def test_the_most_asked_come_first_and_no_more_than_wanted(asked: Asked) -> None:
    other = TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64")
    once, often, elsewhere = request("once"), request("often"), request("often", target=other)
    for one in (often, once, elsewhere, often, elsewhere, often):
        asked.count(one)
    assert keys(await asked.most(EVER, [])) == keys([often, elsewhere, once])
    asked.count(once)
    assert keys(await asked.most(Recent(1, 2), [])) == keys([often, once])
    assert keys(await asked.most(EVER, [request("OFTEN")])) == keys([once, elsewhere])


async def test_requests_of_one_key_are_one_whoever_asks(asked: Asked, metadata: SqlMetadataStore) -> None:
    for namespace in ("a", "b", None):
        asked.count(request("a\nb", namespace))
    asked.count(request("b\n\nA"))
    await asked.most(EVER, [])
    [record] = await metadata.asked.most(datetime.now(UTC) - timedelta(days=1), 10)
    assert record.times == 4
    assert record.request["namespace"] is None


async def test_what_an_operator_has_since_taken_away_is_left_out(metadata: SqlMetadataStore) -> None:
    before = Asked(metadata.asked, REQUESTS, PLATFORMS, every=NEVER)
    before.count(request(namespace="shop"))
    before.count(request(indexes=["open"]))
    await before.close()
    after = Asked(metadata.asked, Requests([OPEN]), PLATFORMS)
    assert keys(await after.most(EVER, [])) == keys([request(indexes=["open"])])


async def test_it_is_written_every_now_and_then(metadata: SqlMetadataStore) -> None:
    asked = Asked(metadata.asked, REQUESTS, PLATFORMS, every=0.01)
    for _ in range(3):
        asked.count(request())
        while not (found := await metadata.asked.most(datetime.now(UTC) - timedelta(days=1), 10)):
            await asyncio.sleep(0.01)
        asked.count(request())
    await asked.close()
    found = await metadata.asked.most(datetime.now(UTC) - timedelta(days=1), 10)
    assert [record.times for record in found] == [6]


async def test_what_has_gathered_is_written_at_the_end(metadata: SqlMetadataStore) -> None:
    asked = Asked(metadata.asked, REQUESTS, PLATFORMS, every=NEVER)
    asked.count(request())
    await asked.close()
    assert len(await metadata.asked.most(datetime.now(UTC) - timedelta(days=1), 10)) == 1
    await asked.close()


async def test_what_nobody_asked_for_in_ninety_days_is_forgotten(asked: Asked, metadata: SqlMetadataStore) -> None:
    now = datetime.now(UTC)
    old = [AskedRecord(str(days), "t", {}, 1, now - timedelta(days=days)) for days in (89, 91)]
    await metadata.asked.add(old)
    asked.count(request())
    await asked.most(EVER, [])
    found = await metadata.asked.most(now - timedelta(days=100), 10)
    assert {record.key for record in found} == {"89", resolution_key(request(), PLATFORMS)}


class Unsteady:
    """A store that is away until it is `here`."""

    def __init__(self, store: AskedStore) -> None:
        self._store = store
        self.here = False

    async def add(self, asked: Collection[AskedRecord]) -> None:
        if not self.here:
            raise StorageUnavailable("away")
        await self._store.add(asked)

    async def most(self, since: datetime, limit: int) -> list[AskedRecord]:
        return await self._store.most(since, limit)

    async def delete_before(self, time: datetime) -> int:
        return await self._store.delete_before(time)


async def test_counts_outlast_a_database_that_is_away(metadata: SqlMetadataStore) -> None:
    store = Unsteady(metadata.asked)
    asked = Asked(store, REQUESTS, PLATFORMS, every=NEVER)
    for requirements in ("a", "b", "a"):
        asked.count(request(requirements))
        with pytest.raises(StorageUnavailable):
            await asked.most(EVER, [])
    store.here = True
    await asked.close()
    found = await metadata.asked.most(datetime.now(UTC) - timedelta(days=1), 10)
    assert [record.times for record in found] == [2, 1]


async def test_what_gathers_is_bounded(metadata: SqlMetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_CHARACTERS", 5000)
    store = Unsteady(metadata.asked)
    asked = Asked(store, REQUESTS, PLATFORMS, every=NEVER)
    for number in itertools.chain(range(100), range(100)):
        asked.count(request(f"{'x' * 488}{number}"))  # with what a record costs, over a thousand characters
    with pytest.raises(StorageUnavailable):
        await asked.most(EVER, [])
    store.here = True
    await asked.close()
    found = await metadata.asked.most(datetime.now(UTC) - timedelta(days=1), 1000)
    assert [record.times for record in found] == [2] * 4
