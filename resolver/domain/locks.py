"""A lock: one PEP 751 file, immutable, in Lockstep's own canonical form, named by the digest of its bytes.

Canonical: packages and wheels in order of their names, `environments` set, `dependencies` filled in from the
wheels' METADATA, no header of the engine, no userinfo and no query in a URL, what is ours under `[tool.lockstep]`.
Each package has the wheels that the covered target classes select, and no others, so that a lock's bytes do not
change when an index adds one more wheel of another kind. A package whose wheel was built here has its `sdist`, which is
what an index serves of it; the wheel's name and hash stand under `[packages.tool.lockstep]`, in `built`.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import tomli_w
from packaging.markers import Marker
from packaging.pylock import Package, PackageSdist, PackageWheel, Pylock
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName
from packaging.version import Version

from resolver.domain.builds import ANY, BuiltWheel
from resolver.domain.requests import Index, RequirementLine, public_url
from resolver.domain.targets import TargetEnvironment
from storage.content import Digest

FORMAT = 1


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """What a lock says of a package beside its wheels: whose index it is from, and, from its METADATA, what it
    requires (PEP 508 texts), its licence, the extras that are active and the packages that it depends on here."""

    index: Index
    requires: tuple[str, ...] = ()
    licence: str | None = None
    extras: tuple[str, ...] = ()
    dependencies: tuple[NormalizedName, ...] = ()


@dataclass(frozen=True)
class Lock:
    """A lock as bytes, and as what they mean."""

    content: bytes
    pylock: Pylock

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a stored lock. Raises ValueError, TOMLDecodeError or PylockValidationError for what is none."""
        return cls(content, Pylock.from_dict(tomllib.loads(content.decode())))

    @cached_property
    def digest(self) -> Digest:
        """The lock's name."""
        return Digest.of(self.content)

    @property
    def _tool(self) -> Mapping[str, Any]:
        tool: Mapping[str, Any] = (self.pylock.tool or {})["lockstep"]
        return tool

    @cached_property
    def targets(self) -> tuple[TargetEnvironment, ...]:
        """The target classes that the lock covers."""
        return tuple(TargetEnvironment.from_name(name) for name in self._tool["targets"])

    @property
    def requirements(self) -> tuple[str, ...]:
        """What was asked for, in canonical form."""
        return tuple(self._tool["requirements"])

    @property
    def constraints(self) -> tuple[str, ...]:
        """The constraints that were given, in canonical form."""
        return tuple(self._tool.get("constraints", ()))

    @cached_property
    def versions(self) -> Mapping[NormalizedName, Version]:
        """The locked version of every package."""
        return {package.name: package.version for package in self.pylock.packages if package.version is not None}

    def covers(self, target: TargetEnvironment) -> bool:
        """Whether the lock was made for this target class (among others)."""
        return target in self.targets

    def select(self, target: TargetEnvironment) -> list[tuple[Package, PackageWheel]]:
        """The wheels that a Pod of this class gets, in order of their names (PEP 751, "Installation").

        Raises:
            PylockSelectError: the lock does not serve that target.
        """
        return list(_wheels(self.pylock, target))


def _wheels(pylock: Pylock, target: TargetEnvironment) -> Iterator[tuple[Package, PackageWheel]]:
    for package, source in pylock.select(environment=target.markers, tags=target.tags):
        if isinstance(source, PackageSdist):
            built = built_wheels(package)
            source = built.get(target.name) or built.get(ANY) or source
        if not isinstance(source, PackageWheel):
            raise TypeError(f"{package.name}: a lock holds wheels, not {type(source).__name__}")
        yield package, source


def tool_facts(package: Package) -> Mapping[str, Any]:
    """What `[packages.tool.lockstep]` says of a package."""
    facts: Mapping[str, Any] = (package.tool or {}).get("lockstep", {})
    return facts


def built_wheels(package: Package) -> Mapping[str, PackageWheel]:
    """The wheels of the package that were built here, by the target class that each is for, or ANY."""
    return {
        built["target"]: PackageWheel(
            name=built["wheel"], path=built["wheel"], size=built["size"], hashes={"sha256": built["sha256"]}
        )
        for built in tool_facts(package).get("built", ())
    }


def compose(
    *,
    requirements: Sequence[RequirementLine],
    constraints: Sequence[RequirementLine],
    picks: Mapping[TargetEnvironment, Pylock],
    facts: Mapping[NormalizedName, PackageFacts],
    built: Sequence[BuiltWheel] = (),
) -> Lock:
    """The lock that covers these targets. `picks` is what the engine answered for each of them, one wheel a
    package, with the same version of a package wherever it stands; some of those may be `built`.

    Raises:
        ValueError: the targets' answers cannot stand in one file (PEP 751 markers cannot tell them apart).
    """
    targets = sorted(picks, key=lambda target: target.name)
    packages = [
        _package(name, picks, targets, facts[name], [wheel for wheel in built if wheel.name == name])
        for name in sorted(facts)
    ]
    python = targets[0].python
    environments = sorted({target.marker for target in targets})
    tool: dict[str, Any] = {
        "format": FORMAT,
        "requirements": sorted({line.canonical for line in requirements}),
        "targets": [target.name for target in targets],
    }
    if constraints:
        tool["constraints"] = sorted({line.canonical for line in constraints})
    pylock = Pylock(
        lock_version=Version("1.0"),
        environments=[Marker(environment) for environment in environments],
        requires_python=SpecifierSet(f"=={python}.*"),
        created_by="lockstep",
        packages=packages,
        tool={"lockstep": tool},
    )
    lock = Lock.parse(tomli_w.dumps(pylock.to_dict()).encode())
    for target, pick in picks.items():
        wanted = {(package.name, wheel.filename) for package, wheel in _wheels(pick, target)}
        if wanted != {(package.name, wheel.filename) for package, wheel in lock.select(target)}:
            raise ValueError(f"one lock file cannot serve {target.name} and the other targets")
    return lock


def _package(
    name: NormalizedName,
    picks: Mapping[TargetEnvironment, Pylock],
    targets: Sequence[TargetEnvironment],
    facts: PackageFacts,
    built: Sequence[BuiltWheel],
) -> Package:
    found = [(target, package) for target in targets for package in picks[target].packages if package.name == name]
    wheels = {wheel.filename: wheel for _, package in found for wheel in package.wheels or ()}
    tool: dict[str, Any] = {"index": facts.index.name}
    if facts.extras:
        tool["extras"] = sorted(facts.extras)
    if facts.licence:
        tool["licence"] = facts.licence
    if facts.requires:
        tool["requires"] = list(facts.requires)
    # What no index serves has no URL in a pick.
    taken = {wheel.hashes["sha256"] for _, package in found for wheel in package.wheels or () if wheel.url is None}
    own = [wheel for wheel in built if wheel.digest.hex in taken]
    wheels = {filename: wheel for filename, wheel in wheels.items() if wheel.url is not None}
    if own:
        tool["built"] = [
            {
                "wheel": wheel.filename,
                "sha256": wheel.digest.hex,
                "size": wheel.size,
                "target": wheel.target,
                "build": wheel.build,
            }
            for wheel in sorted(own, key=lambda wheel: wheel.target)
        ]
    return Package(
        name=name,
        version=found[0][1].version,
        marker=_marker({target.machine for target, _ in found}, {target.machine for target in targets}),
        dependencies=[{"name": dependency} for dependency in sorted(facts.dependencies)] or None,
        index=facts.index.public_url,
        wheels=[
            PackageWheel(
                name=filename,
                url=public_url(wheel.url or ""),
                upload_time=wheel.upload_time,
                size=wheel.size,
                hashes={"sha256": wheel.hashes["sha256"]},
            )
            for filename, wheel in sorted(wheels.items())
        ]
        or None,
        sdist=own[0].sdist if own else None,
        tool={"lockstep": tool},
    )


def _marker(having: set[str], covered: set[str]) -> Marker | None:
    # Within one lock the Python version is one, so the machine is all that a marker can tell targets apart by.
    if having == covered:
        return None
    return Marker(" or ".join(f"platform_machine == '{machine}'" for machine in sorted(having)))
