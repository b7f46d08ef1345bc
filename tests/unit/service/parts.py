"""Locks of a few small wheels, and an index and a builder for them that need no network and no process."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from packaging.pylock import Package, PackageWheel, Pylock
from packaging.utils import canonicalize_name
from packaging.version import Version

from resolver.domain.layers import BuiltLayer
from resolver.domain.locks import Lock, PackageFacts, compose
from resolver.domain.ports import ProjectFile, WheelReference
from resolver.domain.requests import Index
from resolver.domain.requirements import parse_requirements
from resolver.domain.targets import TargetEnvironment
from storage.blob_protocols import BlobStore
from storage.content import Digest

TARGET = TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64")
INDEX = Index("pypi", "https://packages.example.com/simple")


def wheel_content(name: str) -> bytes:
    return f"the wheel of {name}".encode()


def wheel_digest(name: str) -> Digest:
    return Digest.of(wheel_content(name))


def picked(**sizes: int | None) -> Pylock:
    """Version 1.0 of these, a wheel each, of these sizes, as an engine has it."""
    packages = [
        Package(
            name=canonicalize_name(name),
            version=Version("1.0"),
            wheels=[
                PackageWheel(
                    name=f"{name}-1.0-py3-none-any.whl",
                    url=f"https://packages.example.com/{name}-1.0-py3-none-any.whl",
                    size=size,
                    hashes={"sha256": wheel_digest(name).hex},
                )
            ],
        )
        for name, size in sizes.items()
    ]
    return Pylock(lock_version=Version("1.0"), created_by="test", packages=packages)


def lock_of(*names: str, indexes: Mapping[str, Index] = MappingProxyType({})) -> Lock:
    """A lock of version 1.0 of these, from INDEX where `indexes` does not name another."""
    pylock = picked(**dict.fromkeys(names))
    return compose(
        requirements=parse_requirements("\n".join(names), field="requirements"),
        constraints=[],
        picks={TARGET: pylock},
        facts={canonicalize_name(name): PackageFacts(indexes.get(name, INDEX)) for name in names},
    )


class Wheels:
    """Brings wheels in (resolver.domain.ports.WheelFetcher). `fetched` counts."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.fetched = 0

    async def fetch(self, wheel: WheelReference) -> None:
        if await self._blobs.size(wheel.digest) is None:
            self.fetched += 1
            await self._blobs.write(_one(wheel_content(wheel.name)), wheel.digest)

    async def metadata(self, wheel: WheelReference, published: ProjectFile | None) -> bytes:
        raise AssertionError("nobody asks for metadata here")


class Builder:
    """Builds layers that hold their wheel (resolver.domain.ports.LayerBuilder)."""

    def __init__(self, toolchain: str = "t1") -> None:
        self._toolchain = toolchain

    def toolchain(self, python: str) -> str:
        return self._toolchain

    def has_interpreter(self, python: str) -> bool:
        return True

    async def build(self, wheel: Path, filename: str, python: str, folder: Path) -> BuiltLayer:
        return _built(wheel.read_bytes(), f"{self._toolchain} {filename}", folder)

    async def build_pth_hook(self, python: str, folder: Path) -> BuiltLayer:
        return _built(b"hook", self._toolchain, folder)

    async def merge(self, layers: Sequence[tuple[Path, Digest]], python: str, folder: Path) -> BuiltLayer:
        return _built(b" ".join(path.read_bytes() for path, _ in layers), f"{self._toolchain} group", folder)


def _built(wheel: bytes, name: str, folder: Path) -> BuiltLayer:
    content = f"layer {name} ".encode() + wheel
    path = folder / "layer"
    path.write_bytes(content)
    return BuiltLayer(
        path=path,
        digest=Digest.of(content),
        size=len(content),
        diff_id=Digest.of(b"plain " + content),
        tar_size=len(content) + 6,
        unpacked_size=len(content),
        listing={f"site-packages/{name}": "0" * 16},
        has_pth=False,
        has_bytecode=True,
    )


def manifest_parts(manifest: bytes) -> set[Digest]:
    """What a manifest names."""
    document = json.loads(manifest)
    return {Digest(part["digest"]) for part in (document["config"], *document["layers"])}


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
