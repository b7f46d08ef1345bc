"""The webhook's certificate, as API servers see it; the registry that Pods mount images from, as nodes see it."""

import asyncio
import ipaddress
import math
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from resolver.doctor import clock
from resolver.doctor.findings import Finding, note, well, wrong
from resolver.domain.redaction import redact
from resolver.settings import Settings

_DAY = 86400.0
_SOON = 14.0  # days
_SECONDS = 10.0
# X509_V_ERR_… of OpenSSL
_EXPIRED = (9, 10)
_OTHER_NAME = (62, 64)


async def check_certificate(settings: Settings, ca_bundle: Path | None) -> list[Finding]:
    """A whole TLS handshake, as far as two ends in one process go: validity, name and signer at once.

    `ca_bundle` is what the API server trusts (`caBundle` of the webhook's configuration); without it, the `ca.crt` that
    stands beside the certificate in a Secret of that kind.
    """
    if not settings.webhook_listen:
        return []
    cert, key = settings.webhook_cert, settings.webhook_key
    if cert is None or key is None:
        return [wrong("webhook", "certificate", "none is named", "webhook_cert and webhook_key")]
    return await asyncio.to_thread(_handshake, cert, key, ca_bundle, _called(settings.webhook_server or ""))


def _called(server: str) -> str | None:
    """The name that the API server calls the Service by, where Pods reach it by a name of the same."""
    name, found, _ = (urlsplit(server).hostname or "").partition(".svc")
    return f"{name}.svc" if found else None


def _handshake(cert: Path, key: Path, ca_bundle: Path | None, name: str | None) -> list[Finding]:
    about = "certificate"
    beside = cert.with_name("ca.crt")
    trusted = ca_bundle or (beside if beside.exists() else None)
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(cert, key)
    except OSError as failure:  # ssl.SSLError is one
        told = f"certificate and key cannot be used: {failure.strerror or failure}"
        return [wrong("webhook", about, told, "a pair in PEM, which uid 10001 may read (webhook.tls)")]
    try:
        client = ssl.create_default_context(cafile=str(trusted or cert))
    except OSError as failure:
        told = f"{trusted or cert} holds no certificates to trust: {failure.strerror or failure}"
        return [wrong("webhook", about, told, "caBundle, decoded from base64: PEM")]
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.check_hostname = name is not None
    try:
        expires = _expiry(server, client, name)
    except ssl.SSLCertVerificationError as failure:
        return [_refused(about, failure, name)]
    days = (expires - time.time()) / _DAY
    findings = [well("webhook", about, f"good for {days:.0f} days" + (f", for {name}" if name else ""))]
    if days < _SOON:
        told = f"expires in {days:.1f} days"
        findings = [
            note("webhook", about, told, "see that it is renewed: cert-manager's events, or webhook.tls.secret")
        ]
    if name is None:
        way_out = "webhook_server: the Service by its name, http://lockstep.lockstep.svc:8080"
        findings.append(note("webhook", about, "the name that it has to be for cannot be told", way_out))
    if trusted is None:
        way_out = "--ca-bundle FILE, with the caBundle of the MutatingWebhookConfiguration, decoded"
        findings.append(note("webhook", about, "whether API servers trust its signer cannot be told", way_out))
    return findings


def _refused(about: str, failure: ssl.SSLCertVerificationError, name: str | None) -> Finding:
    if failure.verify_code in _EXPIRED:
        told = f"is not valid now: {failure.verify_message}"
        return wrong(
            "webhook", about, told, "have it renewed: cert-manager's events; `generated`: delete its Secret, upgrade"
        )
    if failure.verify_code in _OTHER_NAME:
        told = f"is not for {name}, by which API servers call it"
        return wrong("webhook", about, told, "dnsNames of the certificate: SERVICE.NAMESPACE.svc")
    told = f"is not signed by what API servers trust: {failure.verify_message}"
    return wrong("webhook", about, told, "caBundle of the webhook's configuration: the CA that signed it (webhook.tls)")


def _expiry(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> float:
    """When the certificate ends, in seconds since the epoch. Raises SSLCertVerificationError."""
    forth, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(back, forth, server_hostname=name)
    called = server.wrap_bio(forth, back, server_side=True)
    for _ in range(10):  # flights of a handshake; TLS 1.3 has three
        for end in (caller, called):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    known = caller.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(known["notAfter"]))) if "notAfter" in known else math.inf


async def check_registry(settings: Settings) -> list[Finding]:
    """What can be told from here of a registry that nodes are to pull from: its name, TLS, an answer."""
    place = settings.webhook_image_registry
    if not place:
        return []
    scheme, separator, rest = place.rpartition("://")
    host = rest.partition("/")[0]
    findings = [*_reachable_by_nodes(host, plain_http=scheme == "http")]
    try:
        # As a node's container runtime has it, unless it is told otherwise: the system's certificates.
        verify = ssl.create_default_context()
        async with httpx.AsyncClient(timeout=_SECONDS, verify=verify) as http:
            answer = await http.get(f"{scheme if separator else 'https'}://{host}/v2/")
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        told = f"does not answer: {redact(str(failure)) or type(failure).__name__}"
        return [
            *findings,
            wrong("registry", host, told, "its name, its certificate (nodes have to trust it too), the way there"),
        ]
    if answer.status_code not in (200, 401):  # distribution-spec, "Determining Support"
        told = f"answers /v2/ with {answer.status_code}: it is no registry"
        findings.append(
            wrong("registry", host, told, "webhook_image_registry: registry/folder, as in `lockstep publish`")
        )
    if not findings:
        told = "answers over TLS; that nodes reach it as well is for a Pod to show"
        findings.append(well("registry", host, told))
    return [*findings, *clock.of_answer(f"registry {host}", answer, datetime.now(UTC))]


def _reachable_by_nodes(host: str, *, plain_http: bool) -> list[Finding]:
    name = urlsplit(f"//{host}").hostname or ""
    found = []
    if name.endswith((".svc", ".cluster.local")) or ".svc." in name or ("." not in name and ":" not in name):
        way_out = "a name that nodes resolve: an Ingress's, a load balancer's, a registry's outside"
        found.append(wrong("registry", host, "is the name of a Service, which nodes do not resolve", way_out))
    if _is_loopback(name):
        found.append(wrong("registry", host, "is this machine alone", "a name that nodes resolve"))
    if plain_http:
        way_out = "TLS, with a certificate that nodes trust"
        found.append(wrong("registry", host, "has no TLS, which container runtimes ask for", way_out))
    return found


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
