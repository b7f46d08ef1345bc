"""Pods at their admission: what the webhook makes of them, told and counted, and warming started for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import structlog

from resolver.domain.errors import LockstepError
from resolver.domain.injection import Delivery, Injected, inject, mounts_for
from resolver.domain.pods import Document, Left
from resolver.domain.requests import Policy, ResolveRequest
from resolver.domain.targets import TargetEnvironment
from resolver.service.mounting import Mounting
from resolver.service.observing import Observing
from resolver.service.progress import Progress
from resolver.service.requests import Requests
from resolver.service.warm import Entry, Warming
from resolver.threads import parsing
from storage.errors import StorageError

Mode = Literal["mutate", "observe"]
T = TypeVar("T")

# Of the 500 ms that an admission may take; the sender's own bound is in seconds.
_DECIDE_SECONDS = 0.3
_LOOK_SECONDS = 0.1
_WARMING = 64
_TOLD = 50

log = structlog.get_logger(__name__)


class Admission:
    """Reviews Pods. `size` tells the unpacked size of a request's bundle where that is known; `tell` is told each
    review's mode and decision; Functions are warmed for `platforms`. `observing` reports what observed Pods would get;
    `mounting` finds images that Pods can mount, where the operator lets them."""

    def __init__(
        self,
        delivery: Delivery,
        requests: Requests,
        warming: Warming,
        size: Callable[[ResolveRequest], Awaitable[int | None]],
        observing: Observing,
        *,
        platforms: Sequence[str],
        tell: Callable[[Mode, str], None],
        mounting: Mounting | None = None,
    ) -> None:
        self._delivery = delivery
        self._requests = requests
        self._warming = warming
        self._size = size
        self._observing = observing
        self._platforms = tuple(platforms)
        self._tell = tell
        self._mounting = mounting
        self._under_way: set[asyncio.Task[None]] = set()

    async def review(self, pod: Document, namespace: str, *, mode: Mode, dry_run: bool) -> Injected | Left:
        """The Pod with its bundle, or why it is left alone. Only a Pod that is made for real has its set made ready; to
        observe is to have it told what that is."""
        try:
            async with asyncio.timeout(_DECIDE_SECONDS):
                found = await self._decided(pod, namespace, pin=mode == "mutate" and not dry_run)
        except TimeoutError:
            found = Left("timeout", "there was no time to look at it")
        except Exception:
            log.exception("admission.failed", namespace=namespace)
            found = Left("failed", "Lockstep failed to look at it")
        decision = found.code if isinstance(found, Left) else "mounted" if found.image else "injected"
        self._tell(mode, decision)
        if decision != "not-asked":
            log.info("admission", mode=mode, dry_run=dry_run, namespace=namespace, decision=decision, **_told(found))
        if isinstance(found, Injected) and not dry_run:
            self._make_ready(found, namespace, mode)
        return found

    async def close(self) -> None:
        """End the warming that was started here."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._mounting is not None:
            await self._mounting.close()

    async def _decided(self, pod: Document, namespace: str, *, pin: bool) -> Injected | Left:
        found = await parsing(inject, pod, self._delivery, namespace=namespace)
        if isinstance(found, Left):
            return found
        if image := await self._image(found, pin=pin):
            return await parsing(inject, pod, self._delivery, namespace=namespace, image=image)
        targets = self._targets(found)
        size = await self._looked_up(found, targets[0], self._size) if targets else None
        if size is None:
            return found
        return await parsing(inject, pod, self._delivery, namespace=namespace, unpacked_size=size)

    async def _image(self, found: Injected, *, pin: bool) -> str | None:
        mounting, target = self._mounting, mounts_for(found, self._platforms)
        if mounting is None or target is None:
            return None
        return await self._looked_up(found, target, lambda request: mounting.image(request, pin=pin))

    async def _looked_up(
        self, found: Injected, target: tuple[str, str], look: Callable[[ResolveRequest], Awaitable[T | None]]
    ) -> T | None:
        """What is known of the Pod's request for that target, within the time that there is for it."""
        if found.asked.known is None or found.workload is None:
            return None
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                request = await parsing(
                    self._requests.parse,
                    requirements=found.asked.known,
                    constraints=None,
                    target=TargetEnvironment.from_platform(*target),
                    indexes=None,
                    policy=Policy(),
                    workload=found.workload,
                )
                return await look(request)
        except (TimeoutError, LockstepError, StorageError) as failure:
            # Without it the volume has no limit, or the bundle is fetched, and the Pod starts all the same.
            log.info("admission.not-known", cause=str(failure) or "no time left")
            return None

    def _targets(self, found: Injected) -> list[tuple[str, str]]:
        if found.asked.target:
            return [found.asked.target]
        return [(found.asked.python, platform) for platform in self._platforms] if found.asked.python else []

    def _make_ready(self, found: Injected, namespace: str, mode: Mode) -> None:
        targets = self._targets(found)
        if found.asked.known is None or not targets:
            if mode == "observe":
                self._observing.unknown(found)
            return
        if found.image and mode == "mutate":
            return
        if len(self._under_way) >= _WARMING:
            log.info("admission.not-warmed", namespace=namespace, cause="too much under way")
            return
        name = found.workload.name if found.workload else "a Pod"
        entry = Entry(name=name, requirements=found.asked.known, targets=targets, namespace=namespace)
        if mode == "observe":
            work = self._observing.observe(found, replace(entry, targets=targets[:1]))
        else:
            work = self._warmed(entry)
        task = asyncio.create_task(work)
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
    told: dict[str, object] = {
        "workload": found.workload.name if found.workload else None,
        "requirements": lines[:_TOLD],
    }
    return told | ({"image": found.image} if found.image else {})
