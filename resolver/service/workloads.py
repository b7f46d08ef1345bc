"""What an operator says of a workload: refresh, hold."""

from datetime import UTC, datetime

from resolver.domain.errors import NotFound
from storage.content import Digest
from storage.protocols import LockStore, WorkloadStore
from storage.records import Hold, WorkloadRecord


class Workloads:
    """Lets new revisions take newer versions, or keeps them on one lock. Neither touches a pin that is there."""

    def __init__(self, workloads: WorkloadStore, locks: LockStore) -> None:
        self._workloads = workloads
        self._locks = locks

    async def refresh(self, namespace: str, workload: str) -> WorkloadRecord:
        """The next new revision resolves anew. Ends a hold."""
        return await self._workloads.refresh(namespace, workload, datetime.now(UTC))

    async def hold(self, namespace: str, workload: str, lock: Digest) -> WorkloadRecord:
        """New revisions take this lock until the next refresh. Raises NotFound where there is no such lock."""
        if await self._locks.get(lock) is None:
            raise NotFound("lock", lock)
        return await self._workloads.hold(namespace, workload, Hold(lock, datetime.now(UTC)))
