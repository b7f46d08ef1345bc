"""Pinned answers, ready-made: the bytes of a request, and of the answer to it.

What a pin says for a target class never changes (contract.md, step 1), so its answer is rendered once. That it still
stands is looked at in the database: the pins of a workload may be forgotten after months, and a bundle that was found
damaged, here or by another replica, is dropped until it is made anew. Where the request names its revision, one look is
good for a second, and for one more while the next look is under way, so that nobody waits for it. Where it does not, a
refresh on any replica starts the next revision, so each request looks, with one read.

Requests with the same bytes, of callers who speak for the same namespaces (`scope`), get the same answer; whether they
may ask at all is for the layers around this one.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sized
from typing import Any

from resolver.domain.requests import ResolveRequest
from resolver.service.asked import Asked
from resolver.service.pinned import Pinned
from resolver.single_flight import SingleFlight
from storage.records import Standing

_STANDS = 1.0
_MOST = 4096
_MOST_BYTES = 64 << 20
_LONGEST = 64 << 10
_PARSED = 16  # bytes in memory that a byte of requirements comes to, parsed


class ReadyMade:
    """An answer as it goes out: its headers (ASGI) and its body."""

    __slots__ = ("content", "headers")

    def __init__(self, content: bytes) -> None:
        length = str(len(content)).encode()
        self.headers = [(b"content-length", length), (b"content-type", b"application/json")]
        self.content = content


class Ready:
    """Remembers answers, a bounded number of them. `counted` is told of each that is given."""

    def __init__(
        self,
        pinned: Pinned,
        asked: Asked,
        counted: Callable[[], None],
        *,
        stands: float = _STANDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pinned = pinned
        self._asked = asked
        self._counted = counted
        self._stands = stands
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._bytes = 0
        self._looking: SingleFlight[bytes, bool] = SingleFlight()

    @property
    def looking(self) -> Sized:
        """The looks under way."""
        return self._looking

    async def find(self, body: bytes, scope: bytes) -> "ReadyMade | None":
        """The answer to the request with this body; None where it has to be worked out. Raises what the store does."""
        name = _name(body, scope)
        known = self._known.get(name)
        if known is None:
            return None
        late = self._clock() - known.until
        if late >= self._stands or known.unnamed:
            if not await self._still(name, known):
                return None
        elif late >= 0 and name not in self._looking:
            self._looking.begin(name, lambda: self._look(name, known))
        known.times += 1
        self._counted()
        return known.made

    def remember(
        self, body: bytes, scope: bytes, request: ResolveRequest, answer: dict[str, Any], content: bytes
    ) -> None:
        """The request with this body was answered so, as `content`. It is kept if it is the answer of a pin."""
        if answer["outcome"] != "pinned" or len(body) > _LONGEST:
            return
        name = _name(body, scope)
        self._forget(name)
        self._known[name] = known = _Known(request, answer, content, _PARSED * len(body) + len(content))
        self._bytes += known.bytes
        while len(self._known) > _MOST or self._bytes > _MOST_BYTES:
            self._forget(next(iter(self._known)))

    async def _still(self, name: bytes, known: "_Known") -> bool:
        if known.unnamed:
            # Nobody joins a look of somebody else: it may have begun before a refresh that this request came after.
            return await self._look(name, known)
        return await self._looking.do(name, lambda: self._look(name, known))

    async def _look(self, name: bytes, known: "_Known") -> bool:
        before = self._clock()
        self._tell(known)
        standing = await self._pinned.standing(known.request)
        if standing is None or not known.is_of(standing):
            if self._known.get(name) is known:
                self._forget(name)
            return False
        if not known.unnamed:
            known.until = before + self._stands
        return True

    def _forget(self, name: bytes) -> None:
        if known := self._known.pop(name, None):
            self._bytes -= known.bytes
            self._tell(known)

    def _tell(self, known: "_Known") -> None:
        times, known.times = known.times, 0
        if times:
            self._asked.count(known.request, times)

    def clear(self) -> None:
        """Forget all: something that an answer names is not there any more."""
        while self._known:
            self._forget(next(iter(self._known)))

    async def close(self) -> None:
        """End what is under way; what was answered is counted."""
        await self._looking.close()
        self.clear()


def _name(body: bytes, scope: bytes) -> bytes:
    return hashlib.sha256(scope + body).digest()  # a scope is of one length, so none runs into a body


class _Known:
    """An answer, and until when it stands; `times` it was given since that was last told."""

    __slots__ = ("bytes", "made", "names", "request", "times", "unnamed", "until")

    def __init__(self, request: ResolveRequest, answer: dict[str, Any], content: bytes, size: int) -> None:
        self.request = request
        self.made = ReadyMade(content)
        self.names = (answer["lock"]["digest"], answer["bundle"]["digest"], answer["pin"]["revision"])
        self.unnamed = request.workload is None or request.workload.revision is None
        self.bytes = size
        self.times = 0
        self.until = -math.inf

    def is_of(self, standing: Standing) -> bool:
        found = standing.bundle.digest if standing.bundle else None
        return self.names == (standing.lock, found, standing.pin.revision)
