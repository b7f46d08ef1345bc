"""What comes of building a layer. Apart from the ports, as processes that build load no more than they need."""

from dataclasses import dataclass
from pathlib import Path

from storage.content import Digest


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer as the builder leaves it: a tar+zstd file at `path`, and what there is to know of it.

    `size` and `tar_size` are the bytes of the packed and of the plain tar, `unpacked_size` those of the files;
    `listing` maps each path (`site-packages/…`, `bin/…`) to the first 16 hexadecimal digits of its SHA-256.
    """

    path: Path
    digest: Digest
    size: int
    diff_id: Digest
    tar_size: int
    unpacked_size: int
    listing: dict[str, str]
    has_pth: bool
    has_bytecode: bool
