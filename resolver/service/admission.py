"""Pods at their admission: what the webhook makes of them, told and counted, and warming started for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import structlog

from resolver.domain.errors import LockstepError
from resolver.domain.injection import Delivery, Injected, inject
from resolver.domain.pods import Document, Left
from resolver.domain.requests import Policy, ResolveRequest
from resolver.domain.targets import TargetEnvironment
from resolver.service.progress import Progress
from resolver.service.requests import Requests
from resolver.service.warm import Entry, Warming
from resolver.threads import parsing
from storage.errors import StorageError

Mode = Literal["mutate", "observe"]

# Of the 500 ms that an admission may take; the sender's own bound is in seconds.
_DECIDE_SECONDS = 0.3
_LOOK_SECONDS = 0.1
_WARMING = 64
_TOLD = 50

log = structlog.get_logger(__name__)


class Admission:
    """Reviews Pods. `size` tells the unpacked size of a request's bundle where that is known; `tell` is told each
    review's mode and decision; Functions are warmed for `platforms`."""

    def __init__(
        self,
        delivery: Delivery,
        requests: Requests,
        warming: Warming,
        size: Callable[[ResolveRequest], Awaitable[int | None]],
        *,
        platforms: Sequence[str],
        tell: Callable[[Mode, str], None],
    ) -> None:
        self._delivery = delivery
        self._requests = requests
        self._warming = warming
        self._size = size
        self._platforms = tuple(platforms)
        self._tell = tell
        self._under_way: set[asyncio.Task[None]] = set()

    async def review(self, pod: Document, namespace: str, *, mode: Mode, dry_run: bool) -> Injected | Left:
        """The Pod with its bundle, or why it is left alone; changes nothing by itself. To observe is to have it logged
        and counted; only a Pod that is made for real, in a namespace that takes part, starts warming."""
        try:
            async with asyncio.timeout(_DECIDE_SECONDS):
                found = await self._decided(pod, namespace)
        except TimeoutError:
            found = Left("timeout", "there was no time to look at it")
        except Exception:
            log.exception("admission.failed", namespace=namespace)
            found = Left("failed", "Lockstep failed to look at it")
        decision = found.code if isinstance(found, Left) else "injected"
        self._tell(mode, decision)
        if decision != "not-asked":
            log.info("admission", mode=mode, dry_run=dry_run, namespace=namespace, decision=decision, **_told(found))
        if isinstance(found, Injected) and mode == "mutate" and not dry_run:
            self._warm(found, namespace)
        return found

    async def close(self) -> None:
        """End the warming that was started here."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _decided(self, pod: Document, namespace: str) -> Injected | Left:
        found = await parsing(inject, pod, self._delivery, namespace=namespace)
        if isinstance(found, Left):
            return found
        size = await self._known_size(found)
        if size is None:
            return found
        return await parsing(inject, pod, self._delivery, namespace=namespace, unpacked_size=size)

    async def _known_size(self, found: Injected) -> int | None:
        targets = self._targets(found)
        if found.asked.known is None or found.workload is None or not targets:
            return None
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                request = await parsing(
                    self._requests.parse,
                    requirements=found.asked.known,
                    constraints=None,
                    target=TargetEnvironment.from_platform(*targets[0]),
                    indexes=None,
                    policy=Policy(),
                    workload=found.workload,
                )
                return await self._size(request)
        except (TimeoutError, LockstepError, StorageError) as failure:
            # Without it the volume has no limit, and the Pod starts all the same.
            log.info("admission.size-unknown", cause=str(failure))
            return None

    def _targets(self, found: Injected) -> list[tuple[str, str]]:
        if found.asked.target:
            return [found.asked.target]
        return [(found.asked.python, platform) for platform in self._platforms] if found.asked.python else []

    def _warm(self, found: Injected, namespace: str) -> None:
        targets = self._targets(found)
        if found.asked.known is None or not targets:
            return
        if len(self._under_way) >= _WARMING:
            log.info("admission.not-warmed", namespace=namespace, cause="too much under way")
            return
        name = found.workload.name if found.workload else "a Pod"
        entry = Entry(name=name, requirements=found.asked.known, targets=targets, namespace=namespace)
        task = asyncio.create_task(self._warmed(entry))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _warmed(self, entry: Entry) -> None:
        for warmed in await self._warming.warm([entry], None, Progress()):
            cause = str(warmed.failure) if warmed.failure else None
            log.info("admission.warmed", workload=entry.name, outcome=warmed.outcome, cause=cause)


def _told(found: Injected | Left) -> dict[str, object]:
    if isinstance(found, Left):
        return {"reason": found.message}
    lines = [line.strip() for line in (found.asked.known or "").splitlines() if line.strip()]
    return {"workload": found.workload.name if found.workload else None, "requirements": lines[:_TOLD]}
