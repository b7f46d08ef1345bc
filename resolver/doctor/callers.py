"""Who calls: whether tokens can be checked, and whether those that Pods are given will be taken."""

import asyncio
from pathlib import Path

from resolver import auth
from resolver.doctor.findings import Finding, note, well, wrong
from resolver.identity.signing_keys import KeysUnavailable
from resolver.identity.static_tokens import read_tokens
from resolver.settings import Settings

CHECK = "auth"


async def check_callers(settings: Settings) -> list[Finding]:
    """Nothing where nobody is asked and nobody else can come."""
    if not settings.auth:
        if not settings.insecure_no_auth:
            return []
        told = "nobody who calls is asked who they are, and everybody is an operator"
        return [note(CHECK, "callers", told, "auth: kubernetes, static, or both; else the network alone has to decide")]
    try:
        auth.check(settings)
    except ValueError as failure:
        return [wrong(CHECK, "settings", str(failure), "`serve` does not start with these")]
    findings = []
    if settings.auth_tokens is not None:
        findings.append(await asyncio.to_thread(_tokens, settings.auth_tokens))
    if "kubernetes" in settings.auth:
        findings.append(await _keys(settings))
    return [*findings, *_of_pods(settings)]


def _tokens(path: Path) -> Finding:
    try:
        known = read_tokens(path)
    except ValueError as failure:
        return wrong(CHECK, "static", str(failure), "tokens.yaml in the Secret auth.tokensSecret")
    operators = sum(each.caller.operator for each in known)
    return well(CHECK, "static", f"{len(known)} tokens, {operators} of them operators'")


async def _keys(settings: Settings) -> Finding:
    try:
        found = await auth.keys_source(settings).fetch()
    except ValueError as failure:
        return wrong(CHECK, "signing keys", str(failure), "in a cluster, run it in the service's own Pod")
    except KeysUnavailable as failure:
        way_out = "the way to the API server (networkPolicy.apiServer), and its role for the service account"
        if settings.auth_issuer:
            way_out = "auth_issuer, auth_jwks_url; the way there (networkPolicy.https), the CA (trustedCertificates)"
        return wrong(CHECK, "signing keys", f"cannot be had: {failure}", way_out)
    return well(CHECK, "signing keys", f"{len(found.keys)} of {found.issuer}")


def _of_pods(settings: Settings) -> list[Finding]:
    if not settings.webhook_listen:
        return []
    about, shown = "Pods", auth.audience_of_pods(settings)
    if shown is None:
        told = "the webhook gives them no token, and without one they are refused: all fall back to pip"
        return [wrong(CHECK, about, told, "auth: kubernetes too (auth.kubernetes)")]
    if "kubernetes" not in settings.auth or shown != settings.auth_audience:
        told = f"the webhook gives them tokens for {shown}, which are not taken here: all fall back to pip"
        return [wrong(CHECK, about, told, "leave webhook_audience out: they then show one for auth_audience")]
    return [well(CHECK, about, f"show tokens for {shown}")]
