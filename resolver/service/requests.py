"""From what a caller says to a ResolveRequest: the door at which bad input stops."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from resolver.domain.builds import DEFAULT_BUILDS, BuildPolicy
from resolver.domain.errors import InvalidRequest
from resolver.domain.outcomes import Notice
from resolver.domain.requests import Index, Policy, ResolveRequest, Workload
from resolver.domain.requirements import parse_constraints, parse_requirements
from resolver.domain.targets import TargetEnvironment

_KERNEL = ("platform_release", "platform_version", "python_full_version", "implementation_version")


class Requests:
    """Parses requests; knows which indexes the operator configured, and what may be built: `builds`, but for the
    namespaces that have a word of their own."""

    def __init__(
        self,
        indexes: Sequence[Index],
        builds: BuildPolicy = DEFAULT_BUILDS,
        namespace_builds: Mapping[str, BuildPolicy] | None = None,
    ) -> None:
        self._indexes = {index.name: index for index in indexes}
        self._builds = builds
        self._namespace_builds = namespace_builds or {}

    def parse(
        self,
        *,
        requirements: str | Sequence[str],
        constraints: str | Sequence[str] | None,
        target: TargetEnvironment,
        indexes: Sequence[str] | None,
        policy: Policy,
        workload: Workload | None,
        namespace: str | None = None,
    ) -> ResolveRequest:
        """The request, checked. `namespace` says for whom it is asked where no workload does.

        Raises:
            InvalidRequest: naming field, line and reason.
        """
        namespace = workload.namespace if workload else namespace
        return ResolveRequest(
            requirements=parse_requirements(requirements),
            constraints=parse_constraints(constraints or ()),
            target=target,
            indexes=self._chosen(indexes, namespace),
            policy=replace(_checked(policy), builds=self._namespace_builds.get(namespace or "", self._builds)),
            workload=workload,
            namespace=namespace,
        )

    def again(
        self, asked: Mapping[str, Any], target: TargetEnvironment, workload: Workload | None = None
    ) -> ResolveRequest:
        """The request that `to_json` wrote down. Raises InvalidRequest where it would be refused by now."""
        newest = asked["exclude_newer"]
        request = self.parse(
            requirements=asked["requirements"],
            constraints=asked["constraints"],
            target=target,
            indexes=asked["indexes"],
            policy=Policy(asked["prereleases"], datetime.fromisoformat(newest) if newest else None),
            workload=workload,
            namespace=asked["namespace"],
        )
        builds = asked.get("builds", request.policy.builds)
        if workload is None and builds in {self._builds, *self._namespace_builds.values()}:
            # Whoever asked may not be told; what was allowed to them still is to somebody.
            return replace(request, policy=replace(request.policy, builds=builds))
        return request

    def _chosen(self, names: Sequence[str] | None, namespace: str | None) -> tuple[Index, ...]:
        if names is None:
            return tuple(index for index in self._indexes.values() if index.open_to(namespace))
        chosen = []
        for name in dict.fromkeys(names):
            index = self._indexes.get(name)
            # One that is not open to the namespace is answered as one that is not there: its name tells nothing.
            if index is None or not index.open_to(namespace):
                usable = ", ".join(index.name for index in self._indexes.values() if index.open_to(namespace))
                raise InvalidRequest(f"no index named {name[:64]!r}; there is: {usable or 'none'}", field="indexes")
            chosen.append(index)
        if not chosen:
            raise InvalidRequest("an empty list of indexes; leave it out to use all", field="indexes")
        return tuple(chosen)


def to_json(request: ResolveRequest) -> dict[str, Any]:
    """What it takes to ask again. Indexes go by name: their URLs hold credentials."""
    newest = request.policy.exclude_newer
    return {
        "requirements": [line.canonical for line in request.requirements],
        "constraints": [line.canonical for line in request.constraints],
        "indexes": [index.name for index in request.indexes],
        "prereleases": request.policy.prereleases,
        "exclude_newer": newest.isoformat() if newest else None,
        "builds": request.policy.builds,
        # As in the key: it counts where an index is not open to all.
        "namespace": request.namespace if any(index.namespaces is not None for index in request.indexes) else None,
    }


def _checked(policy: Policy) -> Policy:
    if policy.exclude_newer is None:
        return policy
    if policy.exclude_newer.tzinfo is None:
        raise InvalidRequest("a time needs its zone, as in 2026-11-01T00:00:00Z", field="exclude_newer")
    newest: datetime = policy.exclude_newer.astimezone(UTC)
    return Policy(prereleases=policy.prereleases, exclude_newer=newest)


def class_base_notices(request: ResolveRequest) -> list[Notice]:
    """A marker that asks for what does not split classes is evaluated for the class's base; that is said."""
    return [
        Notice(
            "class-base",
            f"line {line.line}: the marker `{line.requirement.marker}` is evaluated for the base of {request.target}, "
            "whatever this Pod's kernel and patch release",
            line.name,
        )
        for line in (*request.requirements, *request.constraints)
        if line.requirement.marker and any(name in str(line.requirement.marker) for name in _KERNEL)
    ]
