"""Whoever shows a token, by whichever way is set."""

import hashlib

from resolver.domain.errors import Unauthenticated
from resolver.domain.identity import Caller
from resolver.identity.service_accounts import ServiceAccounts
from resolver.identity.static_tokens import StaticTokens

_LONGEST = 16 << 10


class Identifying:
    """Identity by tokens from a file, then by the cluster's (resolver.domain.identity.Identity)."""

    def __init__(self, static: StaticTokens | None, accounts: ServiceAccounts | None) -> None:
        self._static = static
        self._accounts = accounts

    async def caller(self, token: str) -> Caller:
        """See Identity."""
        if len(token) > _LONGEST:
            raise Unauthenticated(f"no token has more than {_LONGEST} characters")
        digest = hashlib.sha256(token.encode()).digest()
        if self._static is not None and (found := self._static.find(digest)) is not None:
            return found
        if self._accounts is None:
            raise Unauthenticated("the token is none that is known here")
        return await self._accounts.caller(token, digest)
