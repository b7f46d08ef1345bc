"""From a lock to a bundle: fetch the wheels, build the layers, write the manifest.

Blobs first, references last: a crash leaves garbage, never a reference to what is not there. What is relied on is
claimed before it is looked for, so that a collection of garbage does not take it away in between (see retain.py).
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import structlog
from packaging.pylock import Package, PackageWheel

from resolver.bundles.grouping import grouped
from resolver.bundles.manifest import assemble, path_conflicts
from resolver.domain.errors import Busy, DamagedLayer, InvalidRequest, InvalidWheel
from resolver.domain.layers import BuiltLayer
from resolver.domain.locks import Lock, tool_facts
from resolver.domain.outcomes import Notice
from resolver.domain.ports import Exclusive, LayerBuilder, WheelFetcher, WheelReference
from resolver.domain.requests import Index
from resolver.domain.targets import TargetEnvironment
from resolver.scratch import needing_room
from resolver.service.healing import Healing
from resolver.service.progress import Progress
from resolver.service.uses import Uses
from resolver.single_flight import SingleFlight
from storage.blob_protocols import BlobStore
from storage.content import Digest
from storage.errors import BlobNotFound, StorageUnavailable
from storage.protocols import ArtifactStore, ContentStore
from storage.records import BundleRecord, LayerRecord

_PTH_HOOK_NAME = "pth-hook"
_PTH_HOOK = Digest.of(_PTH_HOOK_NAME.encode())  # stands where a layer's record has its wheel
_GROUP = "group-v1"
_CONFLICTS_SHOWN = 20
_TURNS = 4
_RETRY_AFTER = 2.0
_PATIENCE = 5.0
"""Seconds to look whether a bundle is whole."""

log = structlog.get_logger(__name__)


class Materialising:
    """Makes bundles. A layer is built once for (wheel, Python, toolchain) and shared by all bundles.

    `scratch` is a folder of ours on the blob store's file system, where there is one, so that a finished layer is
    moved in, not copied.
    """

    def __init__(
        self,
        blobs: BlobStore,
        artifacts: ArtifactStore,
        contents: ContentStore,
        uses: Uses,
        healing: Healing,
        wheels: WheelFetcher,
        builder: LayerBuilder,
        indexes: Mapping[str, Index],
        scratch: Path,
        exclusive: Exclusive,
        *,
        shared_paths: Literal["warn", "refuse"] = "warn",
    ) -> None:
        self._blobs = blobs
        self._artifacts = artifacts
        self._contents = contents
        self._uses = uses
        self._healing = healing
        self._wheels = wheels
        self._builder = builder
        self._indexes = indexes
        self._scratch = scratch
        self._exclusive = exclusive
        self._shared_paths = shared_paths
        self._layers: SingleFlight[tuple[Digest, str, str], LayerRecord] = SingleFlight()

    async def bundle(self, lock: Lock, target: TargetEnvironment, progress: Progress) -> BundleRecord:
        """The lock's bundle for the target, made now if it is not there whole.

        Raises:
            PylockSelectError: the lock does not serve the target.
            InvalidRequest: two wheels write one path, and the operator is strict.
            Busy: what it is made of went away as often as it was made.
            What the wheel fetcher, the layer builder and the stores raise.
        """
        toolchain = self._builder.toolchain(target.python)
        for _ in range(_TURNS):
            try:
                record = await self._artifacts.bundle(lock.digest, target.name, toolchain)
                if record is not None and await self._is_usable(record):
                    return record
                made = await self._make(lock, target, toolchain, progress)
            except BlobNotFound:
                continue  # collected, or put aside as damaged, between two looks at it
            if made is not None:
                return made
        raise Busy("building a bundle", _RETRY_AFTER, "what it is made of keeps going away")

    async def known(self, lock: Lock, target: TargetEnvironment) -> BundleRecord | None:
        """The record of the lock's bundle for the target; looks no further than that, and makes nothing."""
        return await self._artifacts.bundle(lock.digest, target.name, self._builder.toolchain(target.python))

    async def _make(
        self, lock: Lock, target: TargetEnvironment, toolchain: str, progress: Progress
    ) -> BundleRecord | None:
        selected = lock.select(target)
        progress.enter("building", total=len(selected))
        layers = await asyncio.gather(
            *(
                self._counted(self._layer(package, wheel, target.python, toolchain), progress)
                for package, wheel in selected
            )
        )
        named = list(zip((wheel.filename for _, wheel in selected), layers, strict=True))
        if any(layer.has_pth for layer in layers):
            named.append((_PTH_HOOK_NAME, await self._pth_hook(target.python, toolchain)))
        return await self._write(lock, target, toolchain, named)

    async def _write(
        self, lock: Lock, target: TargetEnvironment, toolchain: str, named: list[tuple[str, LayerRecord]]
    ) -> BundleRecord | None:
        """The bundle of these layers; None where some of it has been removed since it was looked at."""
        bytecode = self._builder.has_interpreter(target.python)
        layers = await self._merged(named, target.python, toolchain)
        image = assemble(target, layers, bytecode=bytecode)
        parts = {*(layer.digest for _, layer in layers), *(digest for digest, _ in image.blobs)}
        of_layers = {layer.listing for _, layer in named} | {
            digest for _, layer in layers for digest in (layer.digest, layer.listing)
        }
        claims = await self._contents.claim(parts | of_layers)
        if not await self._here(*of_layers):
            return None
        notices = await self._shared(named)
        if not bytecode:
            notices.append(Notice("no-bytecode", f"no interpreter of Python {target.python} at hand: no byte-code"))
        await _all(*(self._blobs.write(_one(content), digest) for digest, content in image.blobs))
        record = BundleRecord(
            lock=lock.digest,
            target=target.name,
            toolchain=toolchain,
            digest=image.digest,
            size=sum(layer.size for _, layer in layers) + len(image.config) + len(image.manifest),
            unpacked_size=sum(layer.unpacked_size for _, layer in layers),
            created=self._uses.now(),
            warnings=tuple({k: v for k, v in asdict(notice).items() if v is not None} for notice in notices),
        )
        if not await self._artifacts.add_bundle(record, {part: claims[part] for part in parts}):
            return None
        self._uses.found(record.digest)
        return record

    def begin(
        self, wheel: WheelReference, python: str, fetched: Callable[[], None] = lambda: None
    ) -> asyncio.Task[LayerRecord]:
        """Begin the wheel's layer, or join where it was begun; nobody has to wait for it, nor to look how it ends. If
        the wheel is fetched for this, `fetched` is called then."""
        toolchain = self._builder.toolchain(python)
        return self._begun(wheel.digest, python, toolchain, lambda: self._from_wheel(wheel, python, toolchain, fetched))

    async def _layer(self, package: Package, wheel: PackageWheel, python: str, toolchain: str) -> LayerRecord:
        reference = self._reference(package, wheel)
        return await self._built(
            reference.digest, python, toolchain, lambda: self._from_wheel(reference, python, toolchain)
        )

    async def _pth_hook(self, python: str, toolchain: str) -> LayerRecord:
        async def build() -> LayerRecord:
            with needing_room("a layer"), tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                built = await self._builder.build_pth_hook(python, Path(folder))
                return await self._keep(_PTH_HOOK, python, toolchain, built)

        return await self._built(_PTH_HOOK, python, toolchain, build)

    async def _merged(
        self, named: list[tuple[str, LayerRecord]], python: str, toolchain: str
    ) -> list[tuple[tuple[str, ...], LayerRecord]]:
        """The layers of the bundle, each with the names of what is in it."""
        groups = grouped(named)
        layers = await asyncio.gather(
            *(
                _itself(group[0][1])
                if len(group) == 1
                else self._group([layer for _, layer in group], python, toolchain)
                for group in groups
            )
        )
        return [(tuple(name for name, _ in group), layer) for group, layer in zip(groups, layers, strict=True)]

    async def _group(self, members: list[LayerRecord], python: str, toolchain: str) -> LayerRecord:
        # What a group is made of stands where a layer's record has its wheel.
        name = Digest.of(" ".join([_GROUP, *(member.diff_id for member in members)]).encode())

        async def build() -> LayerRecord:
            with needing_room("a layer"), tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                async with AsyncExitStack() as open_layers:
                    files = [
                        (await open_layers.enter_async_context(self._blobs.local(member.digest)), member.diff_id)
                        for member in members
                    ]
                    try:
                        built = await self._builder.merge(files, python, Path(folder))
                    except DamagedLayer:
                        for member in members:
                            await self._healing.examine(member.digest)
                        raise BlobNotFound(name) from None
                return await self._keep(name, python, toolchain, built)

        return await self._built(name, python, toolchain, build)

    async def _built(
        self, wheel: Digest, python: str, toolchain: str, build: Callable[[], Coroutine[Any, Any, LayerRecord]]
    ) -> LayerRecord:
        return await asyncio.shield(self._begun(wheel, python, toolchain, build))

    def _begun(
        self, wheel: Digest, python: str, toolchain: str, build: Callable[[], Coroutine[Any, Any, LayerRecord]]
    ) -> asyncio.Task[LayerRecord]:
        async def look() -> LayerRecord | None:
            record = await self._artifacts.layer(wheel, python, toolchain)
            return record if record is not None and await self._here(record.digest, record.listing) else None

        def lead() -> Coroutine[Any, Any, LayerRecord]:
            # No fence: a layer that comes late is the same layer.
            return self._exclusive.once(f"layer:{wheel}:{python}:{toolchain}", look, lambda _: build())

        return self._layers.begin((wheel, python, toolchain), lead)

    async def _from_wheel(
        self, wheel: WheelReference, python: str, toolchain: str, fetched: Callable[[], None] = lambda: None
    ) -> LayerRecord:
        await self._wheels.fetch(wheel)
        fetched()
        with needing_room("a layer"), tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            try:
                async with self._blobs.local(wheel.digest) as path:
                    built = await self._builder.build(path, wheel.filename, python, Path(folder))
            except InvalidWheel:
                # Published so, or rotten since it was fetched and its hash checked?
                if await self._healing.examine(wheel.digest) != "sound":
                    raise BlobNotFound(wheel.digest) from None
                raise
            return await self._keep(wheel.digest, python, toolchain, built)

    async def _keep(self, wheel: Digest, python: str, toolchain: str, built: BuiltLayer) -> LayerRecord:
        listing = json.dumps(built.listing, sort_keys=True, separators=(",", ":")).encode()
        claims = await self._contents.claim([built.digest, Digest.of(listing)])
        await _all(self._blobs.add_file(built.path, built.digest), self._blobs.write(_one(listing), Digest.of(listing)))
        record = LayerRecord(
            wheel=wheel,
            python=python,
            toolchain=toolchain,
            digest=built.digest,
            size=built.size,
            diff_id=built.diff_id,
            tar_size=built.tar_size,
            unpacked_size=built.unpacked_size,
            listing=Digest.of(listing),
            has_pth=built.has_pth,
            has_bytecode=built.has_bytecode,
        )
        # It is refused where the layer has been collected since; whoever makes a bundle of it claims it, and sees.
        await self._artifacts.add_layer(record, claims)
        return record

    async def _shared(self, named: list[tuple[str, LayerRecord]]) -> list[Notice]:
        listings = [(name, json.loads(await self._content(layer.listing))) for name, layer in named]
        conflicts = await asyncio.to_thread(path_conflicts, listings)
        if conflicts and self._shared_paths == "refuse":
            told = "; ".join(
                f"{conflict.path} ({', '.join(conflict.names)})" for conflict in conflicts[:_CONFLICTS_SHOWN]
            )
            raise InvalidRequest(f"packages write the same paths with different content: {told}", field="requirements")
        return [
            Notice("path-conflict", f"{conflict.path} is in {', '.join(conflict.names)}; the last one wins")
            for conflict in conflicts[:_CONFLICTS_SHOWN]
        ]

    def _reference(self, package: Package, wheel: PackageWheel) -> WheelReference:
        name = str(tool_facts(package).get("index", ""))
        # An index that the operator has removed since: its files are still asked for by the lock's own URL.
        index = self._indexes.get(name) or Index(name, package.index or "")
        return WheelReference.locked(package, wheel, index)

    async def _counted(self, layer: Coroutine[Any, Any, LayerRecord], progress: Progress) -> LayerRecord:
        record = await layer
        progress.step()
        return record

    async def _is_usable(self, record: BundleRecord) -> bool:
        """Whether the bundle is held from now on, and every blob of it is here. What was so lately still is, as there
        is a record of it."""
        if self._uses.is_recent(record.digest):
            return True
        recorded = await self._uses.record(record.digest)
        if recorded is False:
            return False
        try:
            async with asyncio.timeout(_PATIENCE):
                whole = await self._is_whole(record)
        except (StorageUnavailable, TimeoutError) as failure:
            # It was whole when its record was written. Who has it already needs no blob, but to hear which one it is.
            log.warning("bundle.not-looked-at", bundle=record.digest, cause=str(failure))
            return True
        if whole and recorded:
            self._uses.found(record.digest)
        return whole

    async def _is_whole(self, record: BundleRecord) -> bool:
        if not await self._here(record.digest):
            return False
        manifest = json.loads(await self._content(record.digest))
        return await self._here(*(Digest(part["digest"]) for part in (manifest["config"], *manifest["layers"])))

    async def _here(self, *digests: Digest) -> bool:
        sizes = await asyncio.gather(*(self._blobs.size(digest) for digest in digests))
        return all(size is not None for size in sizes)

    async def _content(self, digest: Digest) -> bytes:
        """All of a small blob. Raises BlobNotFound also for one that is damaged, and put aside for that."""
        content = b"".join([chunk async for chunk in self._blobs.read(digest)])
        if Digest.of(content) != digest:
            await self._healing.examine(digest)
            raise BlobNotFound(digest)
        return content

    async def close(self) -> None:
        """End what is under way."""
        await self._layers.close()


async def _itself(layer: LayerRecord) -> LayerRecord:
    return layer


async def _all(*writing: Coroutine[Any, Any, int]) -> None:
    """Write all of it at the same time: each waits for the disk. Nothing of it goes on once this has failed."""
    for ended in await asyncio.gather(*writing, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
