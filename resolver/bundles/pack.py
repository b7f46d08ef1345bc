"""A tree as a layer: a tar that depends on the tree alone, compressed with zstd (OCI image-spec, layer)."""

import hashlib
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from storage.content import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# On 491 MB of numpy, pandas, scikit-learn, matplotlib and pyarrow, level 3 gave 141 MB in 1.9 s, level 6 gave 130 MB
# in 4.7 s, level 9 gave 123 MB in 7.5 s: a first replica waits for this, so the smaller sizes cost more than they save.
_LEVEL = 3
COMPRESSOR = f"zstd-{zstd.zstd_version}-{_LEVEL}"

# 1980-01-01, the earliest time that a zip can hold: tools that zip an installed tree still can.
_MTIME = 315532800
_CHUNK = 1 << 20
_GATHERED = 1 << 18


@dataclass(frozen=True, slots=True)
class Packed:
    """What there is to know of a packed tree; see BuiltLayer."""

    digest: Digest
    size: int
    diff_id: Digest
    tar_size: int
    unpacked_size: int
    listing: dict[str, str]


@dataclass(frozen=True, slots=True)
class Member:
    """A folder, or (with a `stream`, good until the next one is asked for) a file of `size` bytes, with its `sha256`
    (hexadecimal) where that is known already."""

    name: str
    stream: BinaryIO | None = None
    size: int = 0
    executable: bool = False
    sha256: str | None = None


def write_layer(members: Iterable[Member], target: Path) -> Packed:
    """Write these, which come in the order of their names, to the new file `target`."""
    listing: dict[str, str] = {}
    unpacked_size = 0
    with target.open("xb") as file:
        sink = _LayerSink(cast("BinaryIO", file))
        # Written forwards, a tar calls `write` and `tell` alone; typeshed asks for a whole file.
        written = cast("BinaryIO", sink)
        with tarfile.TarFile(fileobj=written, mode="w", format=tarfile.PAX_FORMAT, copybufsize=_CHUNK) as tar:
            for member in members:
                info = tarfile.TarInfo(member.name)
                info.mtime = _MTIME
                if member.stream is None:
                    info.type = tarfile.DIRTYPE
                    info.mode = 0o755
                    tar.addfile(info)
                    continue
                info.mode = 0o755 if member.executable else 0o644
                info.size = member.size
                if member.sha256 is None:
                    source = _HashingReader(member.stream)
                    tar.addfile(info, cast("BinaryIO", source))
                    listing[member.name] = source.hexdigest()[:16]
                else:
                    tar.addfile(info, member.stream)
                    listing[member.name] = member.sha256[:16]
                unpacked_size += info.size
        sink.finish()
    return Packed(sink.digest, sink.size, sink.diff_id, sink.tar_size, unpacked_size, listing)


class _HashingReader:
    """Hashes what is read through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._hash.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _LayerSink:
    """Takes a tar, writes it compressed, and knows the digests of both. Small pieces are gathered first: to hash and
    compress each header and each end of a block by itself costs more than the bytes do."""

    def __init__(self, file: BinaryIO) -> None:
        key = zstd.CompressionParameter
        self._file = file
        self._gathered = bytearray()
        self._compressor = zstd.ZstdCompressor(options={key.compression_level: _LEVEL, key.checksum_flag: 1})
        self._plain = hashlib.sha256()
        self._compressed = hashlib.sha256()
        self.tar_size = 0
        self.size = 0

    def write(self, chunk: bytes) -> int:
        self.tar_size += len(chunk)
        if len(self._gathered) + len(chunk) < _GATHERED:
            self._gathered += chunk
        else:
            self._pass_on(self._gathered)
            self._gathered.clear()
            self._pass_on(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self.tar_size

    def finish(self) -> None:
        self._pass_on(self._gathered)
        self._emit(self._compressor.flush())

    def _pass_on(self, chunk: bytes | bytearray) -> None:
        self._plain.update(chunk)
        self._emit(self._compressor.compress(chunk))

    def _emit(self, chunk: bytes) -> None:
        self._compressed.update(chunk)
        self.size += len(chunk)
        self._file.write(chunk)

    @property
    def digest(self) -> Digest:
        return Digest.from_hex(self._compressed.hexdigest())

    @property
    def diff_id(self) -> Digest:
        return Digest.from_hex(self._plain.hexdigest())
