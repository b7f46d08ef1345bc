"""Several layers as one: what a tree has once they are laid over each other in their order (see grouping.py)."""

import hashlib
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from resolver.bundles.pack import Member, Packed, write_layer
from resolver.domain.errors import DamagedLayer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK = 1 << 20

Entries = dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]]


def merge(layers: Sequence[tuple[Path, str]], scratch: Path, target: Path) -> Packed:
    """Write to the new file `target` what these layers are together; each is a tar+zstd with its diff_id. `scratch` is
    a folder for their plain tars.

    Raises:
        DamagedLayer: one of them is not what its diff_id names.
        OSError.
    """
    entries: Entries = {}
    with ExitStack() as stack:
        for number, (layer, diff_id) in enumerate(layers):
            plain = scratch / f"{number}.tar"
            _decompress(layer, plain, diff_id)
            tar = stack.enter_context(tarfile.open(plain, "r:"))
            for info in tar:
                _lay(entries, tar, info)
        return write_layer(_members(entries), target)


def _decompress(layer: Path, plain: Path, diff_id: str) -> None:
    # What comes of it gets a digest of its own: this is the last place where damage shows.
    hasher = hashlib.sha256()
    try:
        with zstd.open(layer, "rb") as packed, plain.open("xb") as file:
            while chunk := packed.read(_CHUNK):
                hasher.update(chunk)
                file.write(chunk)
    except (zstd.ZstdError, EOFError) as error:
        raise DamagedLayer(str(error)) from error
    if diff_id != f"sha256:{hasher.hexdigest()}":
        raise DamagedLayer(f"what was kept as {diff_id} is sha256:{hasher.hexdigest()}")


def _lay(entries: Entries, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
    """Lay one more entry over those that are there; a layer has every folder, and before what is in it."""
    there = entries.get(info.name)
    if info.isdir() and there is not None and there[1].isdir():
        return
    if there is not None and there[1].isdir():
        for path in [path for path in entries if path.startswith(f"{info.name}/")]:
            del entries[path]
    entries[info.name] = (tar, info)


def _members(entries: Entries) -> Iterator[Member]:
    for name, (tar, info) in sorted(entries.items()):
        if info.isdir():
            yield Member(name)
            continue
        stream = tar.extractfile(info)
        if stream is None:
            raise DamagedLayer(f"{name!r} is neither a regular file nor a folder")
        with stream:
            yield Member(name, cast("BinaryIO", stream), info.size, bool(info.mode & 0o100))
