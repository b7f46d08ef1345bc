"""What is built from source: by which rules, out of what, and what came of it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from packaging.pylock import PackageSdist, PackageWheel
from packaging.tags import Tag
from packaging.utils import NormalizedName
from packaging.version import Version

from storage.content import Digest

BuildPolicy = Literal["never", "pure", "native"]
"""Which source distributions may be built: none, those that make a wheel for any platform, all."""

DEFAULT_BUILDS: BuildPolicy = "pure"

ANY = "any"
"""The target of a wheel that any platform installs."""


@dataclass(frozen=True, slots=True)
class BuiltWheel:
    """A wheel that was built of a source distribution: its file name, digest and bytes, the sdist as PEP 751 has it,
    the name of the record of its build, and the target class that it was built for, or ANY. `metadata` is its METADATA:
    all that an engine needs to see of it."""

    name: NormalizedName
    version: Version
    filename: str
    digest: Digest
    size: int
    sdist: PackageSdist
    build: str
    target: str
    metadata: bytes = field(repr=False)

    def serves(self, target: str) -> bool:
        """Whether it is for the target class of this name. Its tags do not tell: `linux_x86_64` is any libc's."""
        return self.target in (ANY, target)

    @property
    def wheel(self) -> PackageWheel:
        """As an engine's answer has it: no index serves it, and so it has no URL."""
        return PackageWheel(name=self.filename, path=self.filename, size=self.size, hashes={"sha256": self.digest.hex})


@dataclass(frozen=True, slots=True)
class SdistFacts:
    """What stands in a source distribution: its PKG-INFO, and what its pyproject.toml asks for (PEP 518, 517)."""

    metadata: bytes
    requires: tuple[str, ...]
    backend: str
    backend_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """A wheel as it came out of the sandbox, in a file at `path`, in the one form that equal builds have in common.
    `pure`: it is for any platform. `glibc`: the newest one whose symbols it uses (PEP 600). `reproducible`: it was
    built twice, and both were equal. `by`: the interpreter that built it, in words. `log`: the end of what the build
    printed, redacted."""

    path: Path
    filename: str
    tags: frozenset[Tag]
    pure: bool
    glibc: tuple[int, int] | None
    digest: Digest
    size: int
    reproducible: bool
    by: str
    seconds: float
    log: str


@dataclass(frozen=True, slots=True)
class Wants:
    """The build wants these as well before it begins (PEP 517, get_requires_for_build_wheel)."""

    requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """No wheel came of it: the cause in a sentence, and the end of what was printed, redacted. `forbidden`: it is
    none that may be built, or can be here, for all that its own code did."""

    cause: str
    log: str = ""
    forbidden: bool = False


def trust_domain(indexes: Sequence[str], namespace: str | None, exclude_newer: datetime | None) -> str:
    """Who shares a built wheel: those who ask the same indexes, in the same order (and, where one of them is not open
    to all, are of one namespace), for nothing newer than the same time. What a build is made of follows from these, so
    nobody gets a wheel that was made of what others may put into an index of their own."""
    newest = exclude_newer.isoformat() if exclude_newer else None
    return json.dumps({"indexes": list(indexes), "namespace": namespace, "exclude_newer": newest}, sort_keys=True)


def build_id(domain: str, sdist: Digest, target: str, builder: str) -> str:
    """The name of a build, 64 hexadecimal digits: of that sdist, for that target class or ANY, by that builder, for
    those of one trust domain. Its build requirements are those that were locked when it was made."""
    return hashlib.sha256(json.dumps([domain, sdist, target, builder]).encode()).hexdigest()
