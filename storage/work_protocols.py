"""What replicas share their work by: operations, leases, refusals, jobs."""

from datetime import datetime
from typing import Any, Protocol

from storage.records import (
    JobRecord,
    Lease,
    OperationRecord,
)


class OperationStore(Protocol):
    """Work that outlives its caller."""

    async def put(self, operation: OperationRecord) -> None:
        """Write the operation as it stands now."""
        ...

    async def get(self, identifier: str) -> OperationRecord | None:
        """The operation, unless it ended long ago."""
        ...

    async def delete_before(self, time: datetime) -> int:
        """Forget operations not updated since; returns how many."""
        ...


class LeaseStore(Protocol):
    """Which replica does a piece of work. Times are the store's own: replicas' clocks differ."""

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        """The lease, for that long, unless somebody else holds it."""
        ...

    async def renew(self, lease: Lease, seconds: float) -> bool:
        """Hold the lease for that long from now; False where it is no longer the holder's."""
        ...

    async def release(self, lease: Lease) -> None:
        """Let the next one have it at once."""
        ...


class RefusalStore(Protocol):
    """How questions were refused, for a short while."""

    async def get(self, question: str, now: datetime) -> dict[str, Any] | None:
        """How the question was refused, if that is still remembered."""
        ...

    async def put(self, question: str, refusal: dict[str, Any], now: datetime, until: datetime) -> None:
        """Remember it until then."""
        ...


class JobStore(Protocol):
    """Cold work that waits for a worker."""

    async def put(self, job: JobRecord, most: int) -> bool:
        """Add the job, or let one that failed before `job.created` wait anew; False where `most` wait already."""
        ...

    async def get(self, identifier: str) -> JobRecord | None:
        """The job, waiting or failed; None where it is done."""
        ...

    async def waiting(self, limit: int) -> list[JobRecord]:
        """Jobs to do: the oldest of each namespace first, then the second of each, and so on."""
        ...

    async def done(self, identifier: str) -> None:
        """The job is done: forget it."""
        ...

    async def fail(self, identifier: str, problem: dict[str, Any], at: datetime, forget: datetime) -> None:
        """The job failed, and how, for those who wait for it; what failed before `forget` is forgotten by the way."""
        ...
