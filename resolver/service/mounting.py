"""The image that a Pod can mount instead of fetching its bundle: known by digest, pinned, and already where nodes pull.

An image that a node cannot pull keeps the Pod from starting, with no way back. So a Pod mounts only what the registry
was just seen to have; whatever is in doubt has the init container fetch, as ever.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

from resolver.client.errors import FetchError
from resolver.client.retries import Passing
from resolver.domain.requests import ResolveRequest
from resolver.service.resolve import Resolving
from storage.content import Digest

Ask = Callable[[str, Digest], bool]
"""Whether a repository has a manifest by that digest. Blocks, for a bounded time; raises FetchError or Passing."""

_THERE_SECONDS = 60.0
_ABSENT_SECONDS = 10.0
_REMEMBERED = 10_000
_UNDER_WAY = 16

log = structlog.get_logger(__name__)


class Published:
    """What a registry has, remembered for a short while. `clock` tells seconds."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: OrderedDict[tuple[str, Digest], tuple[float, bool]] = OrderedDict()
        self._under_way: dict[tuple[str, Digest], asyncio.Task[bool]] = {}

    async def has(self, repository: str, digest: Digest) -> bool:
        """Whether the image is there for certain. The question goes on where its caller has no more time: the next
        one then finds the answer."""
        key = (repository, digest)
        until, there = self._known.get(key, (0.0, False))
        if self._clock() < until:
            return there
        if key not in self._under_way:
            if len(self._under_way) >= _UNDER_WAY:
                return False
            self._under_way[key] = asyncio.create_task(self._asked(*key))
        return await asyncio.shield(self._under_way[key])

    async def close(self) -> None:
        """Wait for the questions under way: a thread cannot be cancelled, and each is bounded."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _asked(self, repository: str, digest: Digest) -> bool:
        key = (repository, digest)
        try:
            there = await asyncio.to_thread(self._ask, repository, digest)
        except (FetchError, Passing) as failure:
            log.warning("admission.registry-in-doubt", cause=str(failure))
            there = False
        except Exception:
            log.exception("admission.registry-in-doubt")
            there = False
        finally:
            del self._under_way[key]
        self._known[key] = (self._clock() + (_THERE_SECONDS if there else _ABSENT_SECONDS), there)
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return there


class Mounting:
    """Finds the image. `place` is the registry, and the folder in it, that `publish` feeds: the images of a workload
    are in `<place>/<namespace>/<workload>` there."""

    def __init__(self, place: str, resolving: Resolving, published: Published) -> None:
        self._place = place
        self._resolving = resolving
        self._published = published

    async def image(self, request: ResolveRequest, *, pin: bool) -> str | None:
        """The reference of the image that replicas of the workload's revision run; None where that is to be settled
        by the first that fetches, or nodes may not have it. `pin`: write down that the revision runs it.

        Raises what the stores raise.
        """
        foreseen = await self._resolving.foreseen(request)
        if foreseen is None or request.workload is None:
            return None
        repository = f"{request.workload.namespace}/{request.workload.name}"
        if not await self._published.has(repository, foreseen.bundle.digest):
            return None
        # Another may have pinned the revision meanwhile; the first writer wins.
        if pin and not await self._resolving.settle(foreseen):
            return None
        return f"{self._place}/{repository}@{foreseen.bundle.digest}"

    async def close(self) -> None:
        """End its questions."""
        await self._published.close()
