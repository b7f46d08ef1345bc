"""What a caller asks for, once parsed."""

from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

from resolver.domain.builds import DEFAULT_BUILDS, BuildPolicy, BuiltWheel
from resolver.domain.targets import TargetEnvironment


@dataclass(frozen=True, slots=True)
class RequirementLine:
    """One requirement (PEP 508), the hashes that any of its files must have (`sha256:<hex>`; empty: any), and the
    1-based line that it stood on."""

    requirement: Requirement
    hashes: frozenset[str] = frozenset()
    line: int = 0

    @property
    def name(self) -> NormalizedName:
        """The project asked for (PEP 503)."""
        return canonicalize_name(self.requirement.name)

    @property
    def canonical(self) -> str:
        """The line in the one form that keys and locks use: normalised name, sorted extras, specifiers and hashes."""
        return canonical_requirement(self.requirement) + "".join(f" --hash={h}" for h in sorted(self.hashes))


def canonical_requirement(requirement: Requirement) -> str:
    """A requirement in one form: normalised name, sorted extras and specifiers, markers as `packaging` writes them."""
    extras = sorted({canonicalize_name(extra) for extra in requirement.extras})
    text = canonicalize_name(requirement.name) + (f"[{','.join(extras)}]" if extras else "")
    text += ",".join(sorted({str(specifier) for specifier in requirement.specifier}))
    return text + (f" ; {requirement.marker}" if requirement.marker else "")


@dataclass(frozen=True, slots=True)
class Index:
    """A package index that the operator configured (PEP 503, 691). `url` may carry credentials: it is for those who
    talk to the index; everybody else uses `public_url`. `namespaces` may use it (None: all)."""

    name: str
    url: str = field(repr=False)
    namespaces: frozenset[str] | None = None

    @property
    def public_url(self) -> str:
        """The URL without userinfo and query."""
        return public_url(self.url)

    def open_to(self, namespace: str | None) -> bool:
        """Whether a workload of this namespace may use the index."""
        return self.namespaces is None or namespace in self.namespaces


def public_url(url: str) -> str:
    """The URL without userinfo, query and fragment: what may stand in a lock."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be chosen. `exclude_newer` (aware, UTC): nothing uploaded later. `builds` is the operator's word: which
    source distributions may be built."""

    prereleases: bool = False
    exclude_newer: datetime | None = None
    builds: BuildPolicy = DEFAULT_BUILDS


@dataclass(frozen=True, slots=True)
class Workload:
    """Who asks: a workload of a namespace, at a revision (None: it has none of its own)."""

    namespace: str
    name: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class ResolveRequest:
    """A whole request. The order of `indexes` has meaning: the first that has a project serves it."""

    requirements: tuple[RequirementLine, ...]
    target: TargetEnvironment
    indexes: tuple[Index, ...]
    constraints: tuple[RequirementLine, ...] = ()
    policy: Policy = Policy()
    workload: Workload | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a locker is asked: one target class at a time. `held` bounds versions beyond the constraints: it is how
    several targets are brought to agree. `built` are wheels that there are beside those of the indexes."""

    requirements: tuple[RequirementLine, ...]
    constraints: tuple[RequirementLine, ...]
    target: TargetEnvironment
    indexes: tuple[Index, ...]
    policy: Policy = Policy()
    held: tuple[tuple[NormalizedName, SpecifierSet], ...] = ()
    built: tuple[BuiltWheel, ...] = ()

    @property
    def built_here(self) -> tuple[BuiltWheel, ...]:
        """Those of the built wheels that are for the question's target class."""
        return tuple(wheel for wheel in self.built if wheel.serves(self.target.name))
