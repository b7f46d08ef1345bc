"""What the routes are given: the use cases, and nothing of how they are made."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from resolver.api.ready import Ready
from resolver.builds.tasks import Tasks
from resolver.domain.identity import Identity
from resolver.service.access import Access
from resolver.service.asked import Asked
from resolver.service.contents import Contents
from resolver.service.delegation import Answering
from resolver.service.images import Images
from resolver.service.inspect import Inspecting
from resolver.service.operations import Operations
from resolver.service.requests import Requests
from resolver.service.streams import Streams
from resolver.service.warm import Warming
from resolver.service.workloads import Workloads
from resolver.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases behind the routes. `degraded` names the shared parts that cannot be reached now; `client` packs
    the zipapp of the client; `tell_request` logs a request that was answered; `identity` knows callers (None: nobody is
    asked); `tasks` are those of builders (None: there are no builders)."""

    requests: Requests
    resolving: Answering
    ready: Ready
    asked: Asked
    warming: Warming
    operations: Operations
    inspecting: Inspecting
    access: Access
    workloads: Workloads
    contents: Contents
    images: Images
    streams: Streams
    metrics: Metrics
    degraded: Callable[[], Awaitable[list[str]]]
    client: Callable[[], Coroutine[Any, Any, bytes]]
    max_body: int
    max_wait: float
    tell_request: Callable[..., None]
    identity: Identity | None = None
    tasks: Tasks | None = None
