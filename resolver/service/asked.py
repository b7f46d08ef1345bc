"""What was asked for lately: counted off the hot path, and asked again to keep it warm."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from resolver.domain.errors import InvalidRequest, UnsupportedTarget
from resolver.domain.keys import resolution_key
from resolver.domain.requests import ResolveRequest
from resolver.domain.targets import TargetEnvironment
from resolver.service.now_and_then import NowAndThen
from resolver.service.requests import Requests, to_json
from storage.protocols import AskedStore
from storage.records import AskedRecord

_EVERY = 5.0
_KEPT = timedelta(days=90)
_MOST_CHARACTERS = 8 << 20
_OVERHEAD = 512  # characters' worth of a record beside its requirements

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recent:
    """What was asked for in the last `days` days, the most often asked first, `limit` requests of it at the most."""

    days: float
    limit: int


class Asked:
    """Counts answered requests by key and target class. They gather in memory and are written every few seconds.

    What gathers is bounded: where the database is away for long, requests that are new beyond the bound are left out.
    """

    def __init__(
        self, store: AskedStore, requests: Requests, platforms: Sequence[str], *, every: float = _EVERY
    ) -> None:
        self._store = store
        self._requests = requests
        self._platforms = tuple(platforms)
        self._gathered: dict[tuple[str, str], AskedRecord] = {}
        self._characters = 0
        self._left_out = 0
        self._writing = NowAndThen("asked", self._write, lambda: len(self._gathered), every)

    def count(self, request: ResolveRequest, times: int = 1) -> None:
        """The request was answered just now, or so many times of late. Waits for nothing."""
        key, target = self._place(request)
        known = self._gathered.get((key, target))
        asked = known.request if known else to_json(request)
        self._gather(AskedRecord(key, target, asked, times=times, last=datetime.now(UTC)))

    async def most(self, recent: Recent, besides: Collection[ResolveRequest]) -> list[ResolveRequest]:
        """The requests, without those that are equal to one of `besides`, and without those that the operator's
        indexes would refuse by now.

        Raises what the store raises.
        """
        await self._write()
        others = {self._place(request) for request in besides}
        found = []
        for record in await self._store.most(datetime.now(UTC) - timedelta(days=recent.days), recent.limit):
            try:
                request = self._again(record)
            except (InvalidRequest, UnsupportedTarget) as failure:
                log.warning("asked.not-any-more", key=record.key, target=record.target, cause=str(failure))
                continue
            if self._place(request) not in others:
                found.append(request)
        return found

    def _again(self, record: AskedRecord) -> ResolveRequest:
        return self._requests.again(record.request, TargetEnvironment.from_name(record.target))

    def _place(self, request: ResolveRequest) -> tuple[str, str]:
        return resolution_key(request, self._platforms), request.target.name

    def _gather(self, record: AskedRecord) -> None:
        place = (record.key, record.target)
        known = self._gathered.get(place)
        if known is not None:
            record = replace(known, times=known.times + record.times, last=max(known.last, record.last))
        elif self._characters + _characters(record) > _MOST_CHARACTERS:
            self._left_out += 1
            return
        else:
            self._characters += _characters(record)
        self._gathered[place] = record
        self._writing.soon()

    async def _write(self) -> None:
        gathered, self._gathered, self._characters = self._gathered, {}, 0
        if self._left_out:
            log.warning("asked.left-out", requests=self._left_out)
            self._left_out = 0
        written = False
        try:
            await self._store.delete_before(datetime.now(UTC) - _KEPT)
            await self._store.add(gathered.values())
            written = True
        finally:
            if not written:
                for record in gathered.values():
                    self._gather(record)

    async def close(self) -> None:
        """Write what has gathered."""
        await self._writing.close()


def _characters(record: AskedRecord) -> int:
    return _OVERHEAD + sum(len(line) for field in ("requirements", "constraints") for line in record.request[field])
