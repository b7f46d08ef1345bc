"""What Pods of a namespace that only observes would get: how a team sees what Lockstep would do for it.

Their sets are locked and built as if they were to start from them, and nobody is pinned. Of each revision the lock of
its first Pod is remembered: where a later Pod would get another, replicas of one revision that install by themselves
differ. A lock answers for `fresh_for`: that is how soon a new release shows. This process alone remembers.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import structlog

from resolver.domain.errors import NotFound
from resolver.domain.estimates import saved
from resolver.domain.injection import Injected, cpu_limit
from resolver.domain.inspection import LockDiff, diff
from resolver.domain.locks import Lock
from resolver.domain.outcomes import Refusal
from resolver.domain.requests import Workload
from resolver.service.lock_book import LockBook
from resolver.service.progress import Progress
from resolver.service.warm import Entry, Warming
from storage.content import Digest

Result = Literal["agrees", "drifts", "refused", "failed", "unknown"]
Tell = Callable[[Result, float], None]
"""Is told each observed Pod's result, and the CPU-seconds that it would save."""

_REMEMBERED = 10_000
_TOLD = 50

log = structlog.get_logger(__name__)


class Observing:
    """Reports what observed Pods would start from: the event `observed`, and `tell`."""

    def __init__(self, warming: Warming, book: LockBook, tell: Tell) -> None:
        self._warming = warming
        self._book = book
        self._tell = tell
        self._first: OrderedDict[Workload, Digest] = OrderedDict()

    async def observe(self, found: Injected, entry: Entry) -> None:
        """Lock the Pod's set, and report."""
        (warmed,) = await self._warming.warm([entry], None, Progress())
        if warmed.answer is None:
            result: Result = "refused" if isinstance(warmed.failure, Refusal) else "failed"
            cause = str(getattr(warmed.failure, "explanation", None) or warmed.failure)
            self._report(found.workload, result, cause=cause)
            return
        lock, bundle = warmed.answer.lock, warmed.answer.bundle
        drift = await self._drift(found.workload, lock)
        limit = cpu_limit(found.pod["spec"]["containers"][found.asked.container])
        estimate = saved(bundle.unpacked_size, limit)
        self._report(
            found.workload,
            "drifts" if drift else "agrees",
            estimate.cpu_seconds,
            lock=lock.digest,
            bundle=bundle.digest,
            packages=len(lock.pylock.packages),
            drift=drift[:_TOLD],
            estimate={"cpu_seconds_saved": estimate.cpu_seconds, "seconds_saved": estimate.seconds},
        )

    def unknown(self, found: Injected) -> None:
        """Report a Pod whose set cannot be told before it runs."""
        cause = "its interpreter is not known before it runs"
        if found.asked.known is None:
            cause = "its requirements are not in its spec"
        self._report(found.workload, "unknown", cause=cause)

    async def _drift(self, workload: Workload | None, lock: Lock) -> list[str]:
        """What is other than in the lock of the revision's first Pod."""
        if workload is None or workload.revision is None:
            return []
        first = self._first.setdefault(workload, lock.digest)
        if len(self._first) > _REMEMBERED:
            self._first.popitem(last=False)
        if first == lock.digest:
            return []
        try:
            return _words(diff((await self._book.get(first)).pylock, lock.pylock))
        except NotFound:  # so long ago that it has been collected
            return [f"lock {first} is another"]

    def _report(self, workload: Workload | None, result: Result, cpu_seconds: float = 0.0, **told: object) -> None:
        self._tell(result, cpu_seconds)
        if workload:
            told |= {"namespace": workload.namespace, "workload": workload.name, "revision": workload.revision}
        log.info("observed", result=result, **told)


def _words(changes: LockDiff) -> list[str]:
    return [
        *(f"{name} {old} → {new}" for name, old, new in changes.changed),
        *(f"{name} {version} is new" for name, version in changes.added),
        *(f"{name} {version} is gone" for name, version in changes.removed),
    ]
