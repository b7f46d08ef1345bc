"""What makes two requests the same question."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC
from typing import NewType

from resolver.domain.builds import DEFAULT_BUILDS
from resolver.domain.requests import ResolveRequest

ResolutionKey = NewType("ResolutionKey", str)
"""SHA-256, as 64 hexadecimal digits, of what a request asks for."""

_SCHEMA = 1


def resolution_key(request: ResolveRequest, platforms: Sequence[str]) -> ResolutionKey:
    """The key of the request, where the operator wants every lock to cover these platforms.

    Machine, libc and rung of the target that asks are no part of it: a lock covers some target classes, and one
    looks for a lock for the key that covers the class. This is how the classes of one revision meet at one pin.
    Neither are workload, engine and patch version. Requirements and constraints are sets; the order of indexes
    has meaning. The namespace counts where an index is not open to all of them, because then two namespaces may
    not share a lock. Indexes go by name alone: their URLs hold credentials.
    """
    exclude_newer = request.policy.exclude_newer
    document: dict[str, object] = {
        "schema": _SCHEMA,
        "requirements": sorted({line.canonical for line in request.requirements}),
        "constraints": sorted({line.canonical for line in request.constraints}),
        "indexes": [index.name for index in request.indexes],
        "policy": {
            "prereleases": request.policy.prereleases,
            "exclude_newer": exclude_newer.astimezone(UTC).isoformat() if exclude_newer else None,
        },
        "python": request.target.python,
        "platforms": sorted(set(platforms)),
        "namespace": _namespace(request) if any(index.namespaces is not None for index in request.indexes) else None,
    }
    if request.policy.builds != DEFAULT_BUILDS:
        # Only what is not the default is said: keys from before there were builds stay as they are.
        document["builds"] = request.policy.builds
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return ResolutionKey(hashlib.sha256(text.encode()).hexdigest())


def _namespace(request: ResolveRequest) -> str | None:
    if request.namespace is None and request.workload is not None:
        return request.workload.namespace
    return request.namespace
