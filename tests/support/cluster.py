"""A cluster as far as tokens go: keys, tokens that they sign, and an API server that gives the keys away over TLS."""

import functools
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from resolver.kubernetes import ApiServer

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/openid/v1/jwks"
AUDIENCE = "lockstep"
POD_TOKEN = "own-token-of-this-pod"

# In a mount namespace of its own: the machine's /var/run stays as it is.
_MOUNTED = 'mount -t tmpfs tmpfs /var/run && mkdir -p "$0" && cp "$1/token" "$1/ca.crt" "$0" && shift && exec "$@"'

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Cluster:
    """Its API server listens on 127.0.0.1; `mode` says how it answers, `asked` holds what it was asked for."""

    def __init__(self, folder: Path | None = None) -> None:
        """With a folder: over TLS, and `folder` is a service account's: its token, and the CA."""
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                cluster._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.keys: dict[str, Key] = {}
        self.mode = "good"
        self.asked: list[str] = []
        self.resume = threading.Event()
        self.folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"{'https' if folder else 'http'}://127.0.0.1:{self._server.server_port}"
        self.issuer = "https://kubernetes.default.svc.cluster.local" if folder else self.url
        if folder is not None:
            cert, key = certificate(folder)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            (folder / "ca.crt").write_bytes(cert.read_bytes())
            (folder / "token").write_text(POD_TOKEN + "\n")

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.resume.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, kid: str, kind: str = "RSA") -> None:
        """A key of that name."""
        self.keys[kid] = _key(kid, kind)

    def jwks(self) -> list[dict[str, Any]]:
        """The public halves, as the API server shows them."""
        found = []
        for kid, key in self.keys.items():
            jwk = (
                ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
                if isinstance(key, ec.EllipticCurvePrivateKey)
                else RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            )
            found.append({**jwk, "kid": kid, "use": "sig", "alg": _algorithm(key)})
        return found

    def claims(self, namespace: str = "shop", account: str = "default") -> dict[str, Any]:
        """What a projected token of a Pod claims."""
        now = int(time.time())
        return {
            "aud": [AUDIENCE],
            "exp": now + 3600,
            "iat": now,
            "iss": self.issuer,
            "jti": "0e1f2a3b",
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": "checkout-6d4cf56db6-x2x7k", "uid": "3c0d"},
                "serviceaccount": {"name": account, "uid": "9a1b"},
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }

    def token(
        self, namespace: str = "shop", account: str = "default", *, kid: str | None = None, **changed: Any
    ) -> str:
        """A token of a service account, signed with the newest key or the one that is named; a claim that is changed to
        None is left out."""
        kid = kid or list(self.keys)[-1]
        claims = {
            name: value for name, value in {**self.claims(namespace, account), **changed}.items() if value is not None
        }
        return sign(claims, self.keys[kid], kid)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        content, status = self._content(request.path), 200
        if self.mode == "down":
            status = 503
        if self.mode == "refuses" or (self.folder and request.headers["Authorization"] != f"Bearer {POD_TOKEN}"):
            status = 403
        if self.mode == "slow":
            self.resume.wait(30)
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _content(self, path: str) -> bytes:
        match self.mode:
            case "garbage":
                return b"<html>a proxy has something to say</html>"
            case "list":
                return b"[]"
            case "no-keys":
                return json.dumps({"issuer": self.issuer, "keys": [{"kty": "oct", "k": "AAAA", "kid": "k"}]}).encode()
            case "huge":
                return b" " * (2 << 20)
        if path == DISCOVERY:
            # An address that Pods do not reach, as that of a control plane is.
            where = f"{self.url}{JWKS}" if self.folder is None else "https://192.0.2.1:6443/openid/v1/jwks"
            return json.dumps({"issuer": self.issuer, "jwks_uri": where}).encode()
        return json.dumps({"keys": self.jwks()}).encode()


@functools.cache
def _key(kid: str, kind: str) -> Key:
    """Made once: an RSA key takes a while."""
    return ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else rsa.generate_private_key(65537, 2048)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, with as few extensions as the CAs of many clusters have."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = builder.add_extension(addresses, critical=False).sign(key, hashes.SHA256())
    cert, pem = folder / "api-server.crt", folder / "api-server.key"
    cert.write_bytes(made.public_bytes(Encoding.PEM))
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert, pem


def in_a_pod(server: ApiServer) -> tuple[list[str], dict[str, str]]:
    """A command that runs the one that it is given with that folder where a Pod has its service account, and the
    variables that tell it where the API server is. Skips the test where there are no mount namespaces."""
    unshare = shutil.which("unshare")
    apart = [unshare or "", "--mount", "--propagation", "private"]
    if unshare is None or os.geteuid() != 0 or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    host, _, port = server.url.removeprefix("https://").partition(":")
    address = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    return [*apart, "sh", "-c", _MOUNTED, str(ApiServer("").folder), str(server.folder)], address


def _algorithm(key: Key) -> str:
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"


def sign(claims: Mapping[str, Any], key: Key, kid: str | None) -> str:
    """A token with these claims."""
    return jwt.encode(dict(claims), key, _algorithm(key), headers={"kid": kid} if kid else None)


@contextmanager
def cluster(folder: Path | None = None) -> Iterator[Cluster]:
    """A cluster with one RSA key, `first`."""
    with Cluster(folder) as started:
        started.add("first")
        yield started
