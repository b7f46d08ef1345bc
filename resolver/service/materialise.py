"""From a lock to a bundle: fetch the wheels, build the layers, write the manifest.

Blobs first, references last: a crash leaves garbage, never a reference to what is not there.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from packaging.pylock import Package, PackageWheel

from resolver.bundles.manifest import assemble, path_conflicts
from resolver.domain.errors import InvalidRequest
from resolver.domain.locks import Lock, tool_facts
from resolver.domain.outcomes import Notice
from resolver.domain.ports import BuiltLayer, LayerBuilder, WheelFetcher, WheelReference
from resolver.domain.requests import Index
from resolver.domain.targets import TargetEnvironment
from resolver.service.progress import Progress
from resolver.single_flight import SingleFlight
from storage.content import Digest
from storage.protocols import ArtifactStore, BlobStore
from storage.records import BundleRecord, LayerRecord

_PTH_HOOK_NAME = "pth-hook"
_PTH_HOOK = Digest.of(_PTH_HOOK_NAME.encode())  # stands where a layer's record has its wheel
_CONFLICTS_SHOWN = 20


class Materialising:
    """Makes bundles. A layer is built once for (wheel, Python, toolchain) and shared by all bundles.

    `scratch` is a folder of ours on the blob store's file system, where there is one, so that a finished layer is
    moved in, not copied.
    """

    def __init__(
        self,
        blobs: BlobStore,
        artifacts: ArtifactStore,
        wheels: WheelFetcher,
        builder: LayerBuilder,
        indexes: Mapping[str, Index],
        scratch: Path,
        *,
        shared_paths: Literal["warn", "refuse"] = "warn",
    ) -> None:
        self._blobs = blobs
        self._artifacts = artifacts
        self._wheels = wheels
        self._builder = builder
        self._indexes = indexes
        self._scratch = scratch
        self._shared_paths = shared_paths
        self._layers: SingleFlight[tuple[Digest, str, str], LayerRecord] = SingleFlight()
        self._whole: set[Digest] = set()

    async def bundle(self, lock: Lock, target: TargetEnvironment, progress: Progress) -> BundleRecord:
        """The lock's bundle for the target, made now if it is not there whole.

        Raises:
            PylockSelectError: the lock does not serve the target.
            InvalidRequest: two wheels write one path, and the operator is strict.
            What the wheel fetcher, the layer builder and the stores raise.
        """
        toolchain = self._builder.toolchain(target.python)
        record = await self._artifacts.bundle(lock.digest, target.name, toolchain)
        if record is not None and await self._is_whole(record):
            return record
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
    ) -> BundleRecord:
        notices = await self._shared(named)
        bytecode = self._builder.has_interpreter(target.python)
        if not bytecode:
            notices.append(Notice("no-bytecode", f"no interpreter of Python {target.python} at hand: no byte-code"))
        image = assemble(target, named, bytecode=bytecode)
        for digest, content in image.blobs:
            await self._blobs.write(_one(content), digest)
        record = BundleRecord(
            lock=lock.digest,
            target=target.name,
            toolchain=toolchain,
            digest=image.digest,
            size=sum(layer.size for _, layer in named) + len(image.config) + len(image.manifest),
            unpacked_size=sum(layer.unpacked_size for _, layer in named),
            created=datetime.now(UTC),
            warnings=tuple({k: v for k, v in asdict(notice).items() if v is not None} for notice in notices),
        )
        await self._artifacts.add_bundle(record)
        return record

    async def _layer(self, package: Package, wheel: PackageWheel, python: str, toolchain: str) -> LayerRecord:
        reference = self._reference(package, wheel)
        return await self._built(
            reference.digest, python, toolchain, lambda: self._from_wheel(reference, python, toolchain)
        )

    async def _pth_hook(self, python: str, toolchain: str) -> LayerRecord:
        async def build() -> LayerRecord:
            with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                built = await self._builder.build_pth_hook(python, Path(folder))
                return await self._keep(_PTH_HOOK, python, toolchain, built)

        return await self._built(_PTH_HOOK, python, toolchain, build)

    async def _built(
        self, wheel: Digest, python: str, toolchain: str, build: Callable[[], Coroutine[Any, Any, LayerRecord]]
    ) -> LayerRecord:
        record = await self._artifacts.layer(wheel, python, toolchain)
        if record is not None and await self._here(record.digest, record.listing):
            return record
        return await self._layers.do((wheel, python, toolchain), build)

    async def _from_wheel(self, wheel: WheelReference, python: str, toolchain: str) -> LayerRecord:
        await self._wheels.fetch(wheel)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            async with self._blobs.local(wheel.digest) as path:
                built = await self._builder.build(path, wheel.filename, python, Path(folder))
            return await self._keep(wheel.digest, python, toolchain, built)

    async def _keep(self, wheel: Digest, python: str, toolchain: str, built: BuiltLayer) -> LayerRecord:
        listing = json.dumps(built.listing, sort_keys=True, separators=(",", ":")).encode()
        await self._blobs.add_file(built.path, built.digest)
        await self._blobs.write(_one(listing), Digest.of(listing))
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
        await self._artifacts.add_layer(record)
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

    async def _is_whole(self, record: BundleRecord) -> bool:
        """Whether every blob of the bundle is here; once seen, a bundle is believed for this process's life."""
        if record.digest in self._whole:
            return True
        if not await self._here(record.digest):
            return False
        manifest = json.loads(await self._content(record.digest))
        parts = [Digest(part["digest"]) for part in (manifest["config"], *manifest["layers"])]
        if not await self._here(*parts):
            return False
        self._whole.add(record.digest)
        return True

    async def _here(self, *digests: Digest) -> bool:
        sizes = await asyncio.gather(*(self._blobs.size(digest) for digest in digests))
        return all(size is not None for size in sizes)

    async def _content(self, digest: Digest) -> bytes:
        return b"".join([chunk async for chunk in self._blobs.read(digest)])

    async def close(self) -> None:
        """End what is under way."""
        await self._layers.close()


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
