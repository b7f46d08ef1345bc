"""Kubernetes' service account tokens (RFC 7519): signed by the cluster, bound to an audience, good for a while."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jwt

from resolver.domain.errors import Unauthenticated
from resolver.domain.identity import Caller
from resolver.identity.signing_keys import ALGORITHMS, SigningKeys

_SUBJECT = "system:serviceaccount:"
_NEEDED = ["exp", "iss", "aud", "sub"]
_LEEWAY = 10.0  # seconds by which clocks may differ
_REMEMBERED = 4096
_FAULTS: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is from another issuer",
    jwt.InvalidSignatureError: "its signature is not of the key that it names",
    jwt.MissingRequiredClaimError: "it lacks a claim that it needs",
}


class ServiceAccounts:
    """Checks tokens for an audience, and remembers those that were found good until they expire or the keys change: a
    signature costs more than a pinned answer. One whose subject is among the `operators` is an operator's, and speaks
    for all namespaces; every other speaks for its own alone."""

    def __init__(
        self,
        keys: SigningKeys,
        *,
        audience: str,
        operators: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._operators = frozenset(operators)
        self._clock = clock
        self._good: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._generation = 0
        self._jwt = jwt.PyJWT({"require": _NEEDED, "enforce_minimum_key_length": True})

    async def caller(self, token: str, digest: bytes) -> Caller:
        """Whose token it is, which has this SHA-256. Raises Unauthenticated, Busy."""
        self._keep_up()
        if (good := self._good.get(digest)) is not None and self._clock() < good[1]:
            return good[0]
        claims = await self._checked(token)
        caller = self._named(claims)
        self._keep_up()
        self._good[digest] = caller, float(claims["exp"])
        while len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return caller

    def _keep_up(self) -> None:
        if self._generation != self._keys.generation:
            self._good.clear()
            self._generation = self._keys.generation

    async def _checked(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthenticated("the token is none that is known here") from None
        kid, algorithm = header.get("kid"), header.get("alg")
        # Before the keys are asked for: no sender of nonsense is worth that.
        if algorithm not in ALGORITHMS or not isinstance(kid, str) or not kid:
            raise Unauthenticated("the token is not signed as the cluster signs")
        found = await self._keys.find(kid)
        if found is None:
            raise Unauthenticated("the token is not usable: the cluster has no key that it names")
        issuer, key = found
        try:
            return self._jwt.decode(
                token, key, algorithms=[*ALGORITHMS], audience=self._audience, issuer=issuer, leeway=_LEEWAY
            )
        except jwt.PyJWTError as failure:
            fault = next((_FAULTS[base] for base in type(failure).__mro__ if base in _FAULTS), "it is malformed")
            raise Unauthenticated(f"the token is not usable: {fault}") from None

    def _named(self, claims: Mapping[str, Any]) -> Caller:
        subject, bound = str(claims["sub"]), claims.get("kubernetes.io")
        namespace = bound.get("namespace") if isinstance(bound, dict) else None
        if not isinstance(namespace, str) or not namespace or not subject.startswith(f"{_SUBJECT}{namespace}:"):
            raise Unauthenticated("the token is not usable: it names no namespace")
        if subject in self._operators:
            return Caller(subject, operator=True)
        return Caller(subject, namespaces=frozenset([namespace]))
