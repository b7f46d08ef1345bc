"""The keys that sign tokens: kept, asked for anew when one is unknown, and served while nobody answers."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import structlog

from resolver.domain.errors import Busy
from resolver.single_flight import SingleFlight

ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")
"""What Kubernetes signs with. Never `none`, and none whose key would be a secret (RFC 8725, 3.1)."""

_TYPES = ("RSA", "EC")
_FRESH = 300.0
_PAUSE = 5.0
_MOST = 64

log = structlog.get_logger(__name__)


class KeysUnavailable(Exception):
    """Who has the keys did not give them: `cause`, which names no credential."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class KeySet:
    """An issuer, and the keys that it signs with, by their ids (RFC 7517, 4.5)."""

    issuer: str
    keys: Mapping[str, jwt.PyJWK]
    source: frozenset[tuple[str, str]]

    @classmethod
    def parse(cls, issuer: str, document: Mapping[str, Any]) -> "KeySet":
        """The usable keys of a JWK Set (RFC 7517, 5): public, with an id. Raises KeysUnavailable: there is none."""
        listed = document.get("keys")
        keys, source = {}, set()
        for each in listed[:_MOST] if isinstance(listed, list) else ():
            if not isinstance(each, dict) or each.get("kty") not in _TYPES or each.get("use", "sig") != "sig":
                continue
            try:
                key = jwt.PyJWK(each)
            except jwt.PyJWTError:
                continue  # as RFC 7517, 5 has it: what is not understood is ignored
            if key.key_id and key.algorithm_name in ALGORITHMS:
                keys[key.key_id] = key
                source.add((key.key_id, repr(sorted(each.items(), key=str))))
        if not keys:
            raise KeysUnavailable("it has no key that could be used")
        return cls(issuer, keys, frozenset(source))


class SigningKeys:
    """Remembers what `fetch` gives, which raises KeysUnavailable, and has a bound of its own.

    A key that is known is served at once, however old: where the keys are older than `fresh` seconds, they are asked
    for beside. One that is unknown may be new, so they are asked for first, but no more than once in `pause` seconds,
    whoever comes with whatever. Each process has its own.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[KeySet]],
        *,
        fresh: float = _FRESH,
        pause: float = _PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._fresh = fresh
        self._pause = pause
        self._clock = clock
        self._known: KeySet | None = None
        self._known_at = 0.0
        self._tried_at = -pause
        self._fault: str | None = None
        self._asking: SingleFlight[None, None] = SingleFlight()
        self.generation = 0
        """Grows whenever the keys are others than before."""

    async def find(self, kid: str) -> tuple[str, jwt.PyJWK] | None:
        """The issuer, and its key with this id; None where there is none.

        Raises:
            Busy: that cannot be told just now.
        """
        came = self._clock()
        if self._known is None or kid not in self._known.keys:
            if self._may_ask or None in self._asking:
                await self._asking.do(None, self._ask)
        elif came - self._known_at >= self._fresh and self._may_ask:
            self.begin()  # nobody waits for it
        if self._known is not None and kid in self._known.keys:
            return self._known.issuer, self._known.keys[kid]
        if self._known is None or self._known_at < came:
            # It was not asked since: a key may be there that nobody here has heard of.
            left = self._tried_at + self._pause - self._clock()
            raise Busy("checking a token", max(1.0, left), "its key is not known here, as yet")
        return None

    def begin(self) -> None:
        """Ask for the keys, whether or not anybody has come with a token."""
        self._asking.begin(None, self._ask)

    async def ping(self) -> None:
        """Raises Busy where they could not be had when they were last asked for, which is then tried again."""
        if self._fault is not None:
            if self._may_ask:
                self.begin()
            raise Busy("asking for the keys of tokens", self._pause, self._fault)

    @property
    def _may_ask(self) -> bool:
        return self._clock() - self._tried_at >= self._pause

    async def close(self) -> None:
        """End what is under way."""
        await self._asking.close()

    async def _ask(self) -> None:
        self._tried_at = began = self._clock()
        try:
            found = await self._fetch()
        except KeysUnavailable as failure:
            self._fault = failure.cause
            log.warning("identity.keys-unavailable", cause=failure.cause, known=self._known is not None)
            return
        except Exception:
            # Perhaps nobody waits for it who would tell.
            self._fault = "asking for them failed; the log has how"
            log.exception("identity.keys-failed")
            raise
        self._fault = None
        if self._known is None or (found.issuer, found.source) != (self._known.issuer, self._known.source):
            self.generation += 1
            log.info("identity.keys", issuer=found.issuer, keys=sorted(found.keys))
        self._known, self._known_at = found, began
