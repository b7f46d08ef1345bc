"""What stands in a lock, and why: differences, paths, and the graph that METADATA spans.

A lock in canonical form has, under `[tool.lockstep]`, its `requirements`, and for each package its `requires`:
the Requires-Dist of its METADATA (core metadata specification).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.pylock import Package, Pylock
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from resolver.domain.requests import canonical_requirement
from resolver.domain.requirements import parse_requirement, parse_requirements
from resolver.domain.targets import TargetEnvironment

MAX_PATHS = 1_000
_MAX_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class LockDiff:
    """What changes from one lock to another, each in order of the names."""

    added: tuple[tuple[NormalizedName, Version], ...]
    removed: tuple[tuple[NormalizedName, Version], ...]
    changed: tuple[tuple[NormalizedName, Version, Version], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A requirement (PEP 508, canonical) on the way, and the package that it asks for."""

    name: NormalizedName
    requirement: str


@dataclass(frozen=True, slots=True)
class Paths:
    """Chains of requirements, shortest first; `truncated` where there are more."""

    paths: tuple[tuple[Step, ...], ...]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """A Requires-Dist of a package that is no requirement, and so was passed over."""

    package: NormalizedName
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Graph:
    """What is reachable from some requirements: of each package, the extras that are asked for (PEP 685) and the
    packages that it depends on. `missing` are those asked for that there is no METADATA of."""

    extras: Mapping[NormalizedName, frozenset[NormalizedName]]
    dependencies: Mapping[NormalizedName, frozenset[NormalizedName]]
    missing: frozenset[NormalizedName]
    unread: tuple[Unread, ...]


def diff(a: Pylock, b: Pylock) -> LockDiff:
    """What changes from lock `a` to lock `b`; each has one version of a package."""
    old, new = _versions(a), _versions(b)
    return LockDiff(
        added=tuple((name, new[name]) for name in sorted(new.keys() - old.keys())),
        removed=tuple((name, old[name]) for name in sorted(old.keys() - new.keys())),
        changed=tuple(
            (name, old[name], new[name]) for name in sorted(old.keys() & new.keys()) if old[name] != new[name]
        ),
    )


def activated(
    requirements: Iterable[Requirement], requires: Mapping[NormalizedName, Sequence[str]], target: TargetEnvironment
) -> Graph:
    """What the requirements reach on a target class, by the Requires-Dist texts of each package.

    Extras travel: `a[all]` may require `a[x]` of itself, and that may require `b[y]`.
    """
    metadata = _Metadata(requires, target)
    seen = set[_Node]()
    extras: dict[NormalizedName, frozenset[NormalizedName]] = {}
    dependencies: dict[NormalizedName, frozenset[NormalizedName]] = {}
    missing = set[NormalizedName]()
    waiting = deque(_Node.of(r) for r in requirements if target.holds(r.marker))
    while waiting:
        node = waiting.popleft()
        if node in seen:
            continue
        seen.add(node)
        if node.name not in requires:
            missing.add(node.name)
            continue
        following = [_Node.of(requirement) for requirement in metadata.active(node)]
        extras[node.name] = extras.get(node.name, frozenset()) | node.extras
        others = {other.name for other in following if other.name != node.name}
        dependencies[node.name] = dependencies.get(node.name, frozenset()) | others
        waiting.extend(following)
    return Graph(extras, dependencies, frozenset(missing), tuple(metadata.unread))


def why(lock: Pylock, package: NormalizedName, targets: Iterable[TargetEnvironment]) -> Paths:
    """Every chain from a requirement of the lock to the package, on any of these target classes, without a circle.

    A package with some extras is one stop of a chain, with others another: `a[all]` → `a[x]` → `b`.
    """
    found: dict[tuple[Step, ...], None] = {}
    truncated = False
    for target in targets:
        paths = _Chains(lock, package, target)
        found |= dict.fromkeys(paths.walk())
        truncated |= paths.truncated
    ordered = sorted(found, key=lambda path: (len(path), [step.requirement for step in path]))
    return Paths(tuple(ordered[:MAX_PATHS]), truncated or len(ordered) > MAX_PATHS)


def requirements_text(lock: Pylock) -> str:
    """The lock as requirements.txt in pip's form: one line a package, with the hash of each file of it."""
    return "".join(_pinned(package) for package in sorted(lock.packages, key=lambda package: package.name))


@dataclass(frozen=True, slots=True)
class _Node:
    name: NormalizedName
    extras: frozenset[NormalizedName]

    @classmethod
    def of(cls, requirement: Requirement) -> "_Node":
        extras = frozenset(canonicalize_name(extra) for extra in requirement.extras)
        return cls(canonicalize_name(requirement.name), extras)


class _Metadata:
    """The Requires-Dist of packages, parsed once each, for one target class."""

    def __init__(self, requires: Mapping[NormalizedName, Sequence[str]], target: TargetEnvironment) -> None:
        self._texts = requires
        self._target = target
        self._parsed: dict[NormalizedName, list[Requirement]] = {}
        self.unread: list[Unread] = []

    def active(self, node: _Node) -> Iterator[Requirement]:
        """What the package requires on the target, with these extras."""
        if node.name not in self._parsed:
            self._parsed[node.name] = list(self._parse(node.name))
        for requirement in self._parsed[node.name]:
            if any(self._target.holds(requirement.marker, extra) for extra in ("", *node.extras)):
                yield requirement

    def _parse(self, name: NormalizedName) -> Iterator[Requirement]:
        for text in self._texts.get(name, ()):
            try:
                yield parse_requirement(text)
            except ValueError as error:
                self.unread.append(Unread(name, text, str(error)))


class _Chains:
    """The search for chains to a package, on one target class."""

    def __init__(self, lock: Pylock, package: NormalizedName, target: TargetEnvironment) -> None:
        self._package = package
        here = [package for package in lock.packages if target.holds(package.marker)]
        self._metadata = _Metadata({p.name: tuple(_tool(p).get("requires", ())) for p in here}, target)
        self._names = {p.name for p in here}
        lines = parse_requirements([str(text) for text in _tool(lock).get("requirements", ())])
        self._roots = self._edges(line.requirement for line in lines if target.holds(line.requirement.marker))
        self._following: dict[_Node, list[tuple[_Node, Step]]] = {}
        self.truncated = False

    def walk(self) -> Iterator[tuple[Step, ...]]:
        """Depth first, always nearer to the package first, so that a bound on the work cuts off detours alone."""
        distances = self._distances()
        steps, paths = 0, 0
        chain: list[Step] = []
        on_chain: list[_Node] = []
        branches = [iter(self._nearest(self._roots, distances))]
        while branches:
            edge = next(branches[-1], None)
            if edge is None:
                branches.pop()
                if on_chain:
                    on_chain.pop()
                    chain.pop()
                continue
            node, step = edge
            steps += 1
            if steps > _MAX_STEPS or paths == MAX_PATHS:
                self.truncated = True
                return
            if any(node.name == other.name and node.extras <= other.extras for other in on_chain):
                continue
            if node.name == self._package:
                paths += 1
                yield (*chain, step)
                continue
            on_chain.append(node)
            chain.append(step)
            branches.append(iter(self._nearest(self._following[node], distances)))

    def _distances(self) -> dict[_Node, int]:
        """How far each node is from the package; those that never get there are left out."""
        waiting = deque(node for node, _ in self._roots)
        before: dict[_Node, list[_Node]] = {}
        while waiting:
            node = waiting.popleft()
            if node in self._following:
                continue
            self._following[node] = self._edges(self._metadata.active(node))
            for other, _ in self._following[node]:
                before.setdefault(other, []).append(node)
                waiting.append(other)
        distances = {node: 0 for node in self._following if node.name == self._package}
        waiting = deque(distances)
        while waiting:
            node = waiting.popleft()
            for earlier in before.get(node, ()):
                if earlier not in distances:
                    distances[earlier] = distances[node] + 1
                    waiting.append(earlier)
        return distances

    def _edges(self, requirements: Iterable[Requirement]) -> list[tuple[_Node, Step]]:
        edges = {(_Node.of(r), Step(canonicalize_name(r.name), canonical_requirement(r))): None for r in requirements}
        return [(node, step) for node, step in edges if node.name in self._names]

    @staticmethod
    def _nearest(edges: Iterable[tuple[_Node, Step]], distances: Mapping[_Node, int]) -> list[tuple[_Node, Step]]:
        return sorted((edge for edge in edges if edge[0] in distances), key=lambda edge: distances[edge[0]])


def _versions(lock: Pylock) -> dict[NormalizedName, Version]:
    return {package.name: package.version for package in lock.packages if package.version is not None}


def _tool(part: Pylock | Package) -> Mapping[str, Sequence[str]]:
    tool: Mapping[str, Sequence[str]] = (part.tool or {}).get("lockstep", {})
    return tool


def _pinned(package: Package) -> str:
    marker = f" ; {package.marker}" if package.marker else ""
    hashes = sorted({wheel.hashes["sha256"] for wheel in package.wheels or ()})
    hashes += [package.sdist.hashes["sha256"]] if package.sdist else []
    return f"{package.name}=={package.version}{marker}" + "".join(f" \\\n    --hash=sha256:{h}" for h in hashes) + "\n"
