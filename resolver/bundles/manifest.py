"""A bundle as an OCI image: the manifest and the image config, of which equal content makes equal bytes."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from packaging.utils import canonicalize_name

from resolver.domain.targets import TargetEnvironment
from storage.content import IMAGE_CONFIG, LAYER_TAR, LAYER_TAR_ZSTD, MANIFEST, Descriptor, Digest

PYTHON = "dev.lockstep.python"
PLATFORM = "dev.lockstep.platform"
BYTECODE = "dev.lockstep.bytecode"
WHEEL = "dev.lockstep.wheel"
WHEELS = "dev.lockstep.wheels"  # of a layer that is several wheels', their names with a space in between

# An image with no layers is allowed ("SHOULD have at least one entry", OCI image-spec, manifest), but its JSON schema
# and several registries and runtimes ask for one: an empty bundle has an empty tar, uncompressed.
EMPTY_TAR = bytes(1024)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class LayerFacts(Protocol):
    """What a manifest says of a layer; both BuiltLayer and LayerRecord know it."""

    @property
    def digest(self) -> Digest:
        """Of the tar+zstd."""
        ...

    @property
    def size(self) -> int:
        """Of the tar+zstd, in bytes."""
        ...

    @property
    def diff_id(self) -> Digest:
        """Of the plain tar."""
        ...


@dataclass(frozen=True, slots=True)
class Image:
    """A bundle. `blobs` are what it needs beside its wheels' layers, in the order to store them: the manifest last."""

    manifest: bytes
    config: bytes
    digest: Digest
    config_digest: Digest
    blobs: tuple[tuple[Digest, bytes], ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path that several layers have, with different content, or (`kinds_differ`) as a file here and a folder there.
    `names` are the layers', in their order: the last one wins."""

    path: str
    names: tuple[str, ...]
    kinds_differ: bool = False


def assemble(target: TargetEnvironment, layers: Sequence[tuple[Sequence[str], LayerFacts]], bytecode: bool) -> Image:
    """The image of these layers, each with the filenames of its wheels in their order, given in any order. One whose
    name is no wheel's (the `.pth` hook) comes after all wheels."""
    descriptors, diff_ids, blobs = [], [], []
    for names, layer in sorted(layers, key=lambda named: layer_order(named[0][0])):
        annotation = {WHEEL: names[0]} if len(names) == 1 else {WHEELS: " ".join(names)}
        descriptors.append(Descriptor(LAYER_TAR_ZSTD, layer.digest, layer.size, annotation))
        diff_ids.append(layer.diff_id)
    if not layers:
        empty = Digest.of(EMPTY_TAR)
        descriptors.append(Descriptor(LAYER_TAR, empty, len(EMPTY_TAR)))
        diff_ids.append(empty)
        blobs.append((empty, EMPTY_TAR))
    config = canonical(
        {
            **platform(target),
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )
    config_digest = Digest.of(config)
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor(IMAGE_CONFIG, config_digest, len(config)).to_json(),
            "layers": [descriptor.to_json() for descriptor in descriptors],
            "annotations": {
                PYTHON: target.python,
                PLATFORM: target.platform,
                BYTECODE: f"cpython-{target.python.replace('.', '')}" if bytecode else "none",
            },
        }
    )
    digest = Digest.of(manifest)
    return Image(manifest, config, digest, config_digest, (*blobs, (config_digest, config), (digest, manifest)))


def platform(target: TargetEnvironment) -> dict[str, str]:
    """What OCI knows of a target class (image-spec, config and index): libc and Python it does not."""
    return {"architecture": _ARCHITECTURES[target.machine], "os": "linux"}


def layer_order(name: str) -> tuple[bool, str, str]:
    """The key that layers are sorted by: wheels by the names of their projects (PEP 503), then what is no wheel."""
    return not name.endswith(".whl"), canonicalize_name(name.partition("-")[0]), name


def path_conflicts(listings: Sequence[tuple[str, Mapping[str, str]]]) -> list[Conflict]:
    """Where layers disagree, by path; a listing maps each file's path to the hash of its content.

    Byte-code is left out: it follows from its source, and may differ between wheels where that does not.
    """
    ordered = sorted(listings, key=lambda named: layer_order(named[0]))
    owners: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for name, listing in ordered:
        for path, content in listing.items():
            if "/__pycache__/" in path:
                continue
            owners[path].append((name, content))
            parent = path.rpartition("/")[0]
            while parent and name not in folders[parent]:
                folders[parent].add(name)
                parent = parent.rpartition("/")[0]
    conflicts = []
    for path, having in sorted(owners.items()):
        names = {name for name, _ in having}
        if path in folders:
            involved = sorted(names | folders[path], key=layer_order)
            conflicts.append(Conflict(path, tuple(involved), kinds_differ=True))
        elif len({content for _, content in having}) > 1:
            conflicts.append(Conflict(path, tuple(name for name, _ in having)))
    return conflicts


def canonical(document: Mapping[str, object]) -> bytes:
    """The one JSON text of a document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
