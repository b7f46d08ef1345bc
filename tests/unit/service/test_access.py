"""What callers may read by its digest, over a real database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from resolver.domain.errors import Forbidden, NotFound
from resolver.domain.identity import Caller
from resolver.domain.requests import Index
from resolver.service.access import Access
from resolver.service.lock_book import LockBook
from storage.content import Digest
from storage.metadata.store import SqlMetadataStore
from storage.records import BundleRecord, PinRecord
from tests.unit.service.parts import INDEX, TARGET, lock_of
from tests.unit.storage.queries import statements

NOW = datetime.now(UTC)
OF_SHOP = Index("internal", "https://internal.example.com/simple", frozenset(["shop"]))
OF_BANK = Index("vault", "https://vault.example.com/simple", frozenset(["bank"]))

OPEN = lock_of("open")
PRIVATE = lock_of("private", "open", indexes={"private": OF_SHOP})
BOTH = lock_of("private", "secret", indexes={"private": OF_SHOP, "secret": OF_BANK})

SHOP, BANK, OTHER = (Caller(name, namespaces=frozenset([name])) for name in ("shop", "bank", "other"))
TWO = Caller("two", namespaces=frozenset(["shop", "bank"]))
ADA = Caller("ada", operator=True)


def part(lock: str) -> Digest:
    return Digest.of(f"a layer of {lock}".encode())


SHARED = Digest.of(b"a layer of all")


class Bench:
    """Three locks with a bundle each."""

    def __init__(self, store: SqlMetadataStore) -> None:
        self.store = store

    def access(self, *indexes: Index) -> Access:
        return Access(indexes or (OF_SHOP, OF_BANK, INDEX), LockBook(self.store.locks), self.store.access)

    async def pin(self, namespace: str, lock: Digest) -> None:
        await self.store.pins.add(PinRecord(namespace, "checkout", "r1", "key", lock, NOW))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
    for name, lock in (("open", OPEN), ("private", PRIVATE), ("both", BOTH)):
        await LockBook(store.locks).add(lock)
        bundle = BundleRecord(lock.digest, TARGET.name, "t1", Digest.of(name.encode()), 1, 2, NOW)
        claims = await store.contents.claim([bundle.digest, part(name), SHARED])
        assert await store.artifacts.add_bundle(bundle, claims)
    yield Bench(store)
    await store.close()


async def readable(access: Access, caller: Caller) -> set[str]:
    """Of the three locks, those that the caller may read; a bundle and its parts are readable where its lock is."""
    found = set()
    for name, lock in (("open", OPEN), ("private", PRIVATE), ("both", BOTH)):
        try:
            await access.lock(caller, lock.digest)
            found.add(name)
        except NotFound:
            pass
        for content in (Digest.of(name.encode()), part(name)):
            assert await access.has_content(caller, content) == (name in found)
    return found


async def test_what_could_be_made_may_be_read(bench: Bench) -> None:
    access = bench.access()
    assert await readable(access, SHOP) == {"open", "private"}
    assert await readable(access, BANK) == {"open"}
    assert await readable(access, OTHER) == {"open"}
    assert await readable(access, ADA) == {"open", "private", "both"}
    # Each of two namespaces lacks one of its indexes: neither could have made it.
    assert await readable(access, TWO) == {"open", "private"}


async def test_what_was_pinned_may_be_read(bench: Bench) -> None:
    await bench.pin("bank", BOTH.digest)
    assert await readable(bench.access(), BANK) == {"open", "both"}
    assert await readable(bench.access(), TWO) == {"open", "private", "both"}
    # Whatever became of the indexes since.
    assert await readable(bench.access(OF_SHOP), BANK) == {"both"}


async def test_a_layer_that_locks_share_is_in_each_of_them(bench: Bench) -> None:
    for caller in (SHOP, BANK, OTHER, TWO, ADA):
        assert await bench.access().has_content(caller, SHARED)
    assert not await bench.access(OF_SHOP, OF_BANK).has_content(OTHER, SHARED)


async def test_while_all_is_open_nothing_is_looked_up(bench: Bench) -> None:
    access = bench.access(INDEX)
    with statements() as seen:
        assert await readable(access, OTHER) == {"open", "private", "both"}
        assert await readable(bench.access(), ADA) == {"open", "private", "both"}
    assert seen == []


async def test_what_was_allowed_once_is_not_looked_up_again(bench: Bench) -> None:
    access = bench.access()
    assert await access.has_content(SHOP, part("private"))
    with statements() as seen:
        for _ in range(10):
            assert await access.has_content(SHOP, part("private"))
            assert await access.has_content(Caller("another Pod", namespaces=frozenset(["shop"])), part("private"))
    assert seen == []
    assert not await access.has_content(BANK, part("private")), "it was allowed to somebody else"
    await bench.pin("bank", PRIVATE.digest)
    assert await access.has_content(BANK, part("private")), "what was not may be later"


async def test_what_is_not_there_is_nobodys(bench: Bench) -> None:
    absent = Digest.of(b"absent")
    assert not await bench.access().has_content(SHOP, absent)
    with pytest.raises(NotFound):
        await bench.access().lock(SHOP, absent)


async def test_repositories(bench: Bench) -> None:
    access = bench.access()
    for name in ("bundles", "shop/checkout", f"locks/{PRIVATE.digest.hex}", "No Such Name"):
        await access.repository(SHOP, name)
        await access.repository(ADA, name)
    for name in ("bank/checkout", "locks/checkout"):
        with pytest.raises(Forbidden):
            await access.repository(SHOP, name)
    for digest in (PRIVATE.digest, Digest.of(b"absent")):
        with pytest.raises(NotFound):
            await access.repository(BANK, f"locks/{digest.hex}")
