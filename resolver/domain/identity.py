"""Who asks, and for which namespaces. A value that every route is given; how it came about is no business of theirs."""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from resolver.domain.errors import Forbidden, InvalidRequest


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks: `name` is for the log, an `operator` may change what others rely on, `namespaces` are those that
    it speaks for (None: all). `scope` is the same for callers that speak for the same namespaces, and for no others."""

    name: str
    operator: bool = False
    namespaces: frozenset[str] | None = None
    scope: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        told = "all" if self.namespaces is None else "/".join(["of", *sorted(self.namespaces)])
        object.__setattr__(self, "scope", hashlib.sha256(told.encode()).digest())

    @property
    def home(self) -> str | None:
        """The namespace that is meant where none is named: the one that it speaks for, where that is one."""
        if self.namespaces is None or len(self.namespaces) != 1:
            return None
        (only,) = self.namespaces
        return only

    def named(self, namespace: str) -> str:
        """The namespace, once it is sure that it speaks for it. Raises Forbidden."""
        if self.namespaces is not None and namespace not in self.namespaces:
            raise Forbidden(f"{self.name} does not speak for namespace {namespace[:64]!r}")
        return namespace

    def within(self, namespace: str | None) -> str | None:
        """The namespace that a list is cut to: the one that is named, or its own; None stands for all of them.

        Raises:
            Forbidden: it does not speak for the one that is named.
            InvalidRequest: none is named, and it speaks for some.
        """
        if namespace is not None:
            return self.named(namespace)
        if self.namespaces is not None and self.home is None:
            raise InvalidRequest("name one of the namespaces that the token is for", field="namespace")
        return self.home


ANYONE = Caller("anyone", operator=True)
"""Whoever asks where nobody is asked who they are."""


class Identity(Protocol):
    """Knows callers by their tokens."""

    async def caller(self, token: str) -> Caller:
        """Whose token it is.

        Raises:
            Unauthenticated: nobody's, or not any more; it says why, and shows nothing of the token.
            Busy: that cannot be told just now.
        """
        ...
