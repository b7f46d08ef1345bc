"""Who calls, as it is set: nobody is asked, or tokens from a file, the cluster's, or both."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resolver.domain.identity import Identity
from resolver.settings import Settings

if TYPE_CHECKING:
    from resolver.identity.discovery import ClusterKeys, IssuerKeys


@dataclass(frozen=True, slots=True)
class Door:
    """Who knows callers (None: nobody is asked), and what that takes of others, by name, to be asked how it is."""

    identity: Identity | None = None
    parts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=dict)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Door]:
    """Knows callers while the context is open.

    Raises:
        ValueError: a setting that is needed is missing, or is none.
    """
    check(settings)
    if not settings.auth:
        yield Door()
        return
    # The cryptography of tokens above all is a part of a start to import: so only where callers are told apart.
    from resolver.identity.identifying import Identifying
    from resolver.identity.service_accounts import ServiceAccounts
    from resolver.identity.signing_keys import SigningKeys
    from resolver.identity.static_tokens import StaticTokens

    async with AsyncExitStack() as stack:
        static = accounts = None
        parts = {}
        if "static" in settings.auth and settings.auth_tokens:
            static = await asyncio.to_thread(StaticTokens, settings.auth_tokens)
            looking = asyncio.create_task(static.keep_current())
            stack.callback(looking.cancel)
        if "kubernetes" in settings.auth:
            keys = SigningKeys(keys_source(settings).fetch)
            stack.push_async_callback(keys.close)
            keys.begin()
            parts["signing keys"] = keys.ping
            accounts = ServiceAccounts(keys, audience=settings.auth_audience, operators=settings.auth_operators)
        yield Door(Identifying(static, accounts), parts)


def check(settings: Settings) -> None:
    """Raises ValueError for settings that do not go together."""
    if ("static" in settings.auth) != (settings.auth_tokens is not None):
        raise ValueError("auth static and auth_tokens, the file with the tokens, go together")
    if "kubernetes" not in settings.auth and (settings.auth_operators or settings.auth_issuer):
        raise ValueError("auth_operators, auth_issuer: they need auth kubernetes")
    if settings.auth_jwks_url and not settings.auth_issuer:
        raise ValueError("auth_jwks_url: needs auth_issuer, whose keys are there")


def keys_source(settings: Settings) -> "ClusterKeys | IssuerKeys":
    """Who is asked for the keys of service account tokens. Raises ValueError: nobody is known, or could be trusted."""
    from resolver.identity.discovery import ClusterKeys, IssuerKeys
    from resolver.kubernetes import ApiServer

    if settings.auth_issuer:
        return IssuerKeys(settings.auth_issuer, settings.auth_jwks_url)
    server = ApiServer.from_environment(os.environ)
    if server is None:
        raise ValueError("auth kubernetes: this is in no cluster (KUBERNETES_SERVICE_HOST); it needs auth_issuer")
    return ClusterKeys(server)


def audience_of_pods(settings: Settings) -> str | None:
    """What the tokens are for that the webhook gives to Pods; None: it gives them none."""
    return settings.webhook_audience or (settings.auth_audience if "kubernetes" in settings.auth else None)
