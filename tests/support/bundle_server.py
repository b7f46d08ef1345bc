"""A small real service for the client's tests: /v1/resolve, /v1/operations, /v1/bundles and /v1/blobs on loopback.

It speaks the contract for bundles that a test makes itself, and fails in the ways that a test asks for.
"""

import hashlib
import io
import json
import re
import ssl
import tarfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from backports import zstd

Files = Mapping[str, bytes | tuple[bytes, int]]  # path → content, or (content, mode)

MTIME = 1_700_000_000
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def make_tar(files: Files, members: tuple[tarfile.TarInfo, ...] = (), form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer's tar, its folders included; `members` come last, with no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        parents = {str(parent) for path in files for parent in _parents(path)}
        for path in sorted(parents):
            folder = tarfile.TarInfo(path)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, MTIME
            tar.addfile(folder)
        for path, given in files.items():
            content, mode = given if isinstance(given, tuple) else (given, 0o644)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), mode, MTIME
            tar.addfile(entry, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return buffer.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


@dataclass(frozen=True)
class Bundle:
    digest: str
    size: int
    unpacked_size: int
    packages: int
    blobs: dict[str, bytes] = field(repr=False)

    @property
    def layers(self) -> list[str]:
        """The digests of the layers, in the manifest's order."""
        return [layer["digest"] for layer in json.loads(self.blobs[self.digest])["layers"]]


def make_bundle(*layers: Files | bytes) -> Bundle:
    """A bundle of these layers, each given as files or as a tar."""
    tars = [layer if isinstance(layer, bytes) else make_tar(layer) for layer in layers]
    packed = [zstd.compress(tar) for tar in tars]
    blobs = {sha256(content): content for content in (*tars, *packed)}
    diff_ids = [sha256(tar) for tar in tars]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    blobs[sha256(config)] = config
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(_CONFIG, config),
        "layers": [_descriptor(_LAYER, content) for content in packed],
    }
    content = json.dumps(manifest).encode()
    blobs[sha256(content)] = content
    return Bundle(sha256(content), sum(map(len, packed)), sum(map(len, tars)), len(layers), blobs)


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


@dataclass
class _Fault:
    substring: str
    kind: str
    times: int | None
    headers: dict[str, str]


class BundleServer:
    """`with BundleServer() as server:`; what a set of requirements gets is said with `serve` or `refuse`."""

    def __init__(self, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.token = token
        self.blobs: dict[str, bytes] = {}
        self.client = b""  # what GET /client/lockstep.pyz answers
        self.requests: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.fallbacks: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.polls = 0  # how often an operation is still running; none: requests are answered at once
        self.prefix = ""  # the path that all others begin with
        self.ranges = True  # whether a Range is honoured
        self.asked_ranges: list[str] = []
        self.blobs_at: str | None = None  # where GET /v1/blobs redirects to
        self.on_blob: Callable[[], None] = lambda: None
        self.closing = threading.Event()
        self._answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self._operations: dict[str, list[Any]] = {}  # id → polls left, answer
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._http = _Server(self)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    def serve(self, requirements: str, bundle: Bundle, *warnings: dict[str, str], **changes: Any) -> None:
        """Answer this text with this bundle; `changes` replace what the bundle says of itself."""
        self.blobs |= bundle.blobs
        facts = {"digest": bundle.digest, "size": bundle.size, "unpacked_size": bundle.unpacked_size} | changes
        packages = [{"name": f"package-{number}", "version": "1"} for number in range(bundle.packages)]
        lock = {"digest": sha256(requirements.encode()), "packages": packages}
        answer = {"lock": lock, "bundle": facts, "outcome": "resolved", "warnings": list(warnings)}
        self._answers[requirements] = (200, answer)

    def refuse(self, requirements: str, status: int, slug: str, title: str, **facts: Any) -> None:
        """Answer this text with this problem."""
        problem = {"type": f"/problems/{slug}", "title": title, "status": status, "request_id": "0a1b2c"} | facts
        self._answers[requirements] = (status, problem)

    def fault(self, substring: str, kind: str, times: int | None = None, headers: dict[str, str] | None = None) -> None:
        """Fail requests whose path has the substring: a status ("503"), "wrong-bytes", "half", "hang", "refuse",
        "garbage"; so many times, or always."""
        self._faults.append(_Fault(substring, kind, times, headers or {}))

    def add(self, content: bytes) -> str:
        """Serve these bytes too; returns their digest."""
        self.blobs[sha256(content)] = content
        return sha256(content)

    def clear_faults(self) -> None:
        self._faults.clear()

    def count(self, substring: str) -> int:
        return sum(substring in path for path in self.requests)

    def take_fault(self, path: str) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.substring in path and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def resolve(self, body: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
        self.bodies.append(body)
        answer = self._answers[body["requirements"]]
        if not self.polls:
            return (*answer, {})
        with self._lock:
            identifier = f"op-{len(self._operations)}"
            self._operations[identifier] = [self.polls, answer]
        path = f"/v1/operations/{identifier}"
        return 202, {"id": identifier, "state": "running"}, {"Location": path, "Retry-After": "0"}

    def operation(self, identifier: str) -> tuple[int, dict[str, Any]]:
        with self._lock:
            operation = self._operations[identifier]
            operation[0] -= 1
            left, answer = operation
        return answer if left < 0 else (202, {"id": identifier, "state": "running", "progress": {}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: BundleServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or does not trust us, is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self) -> None:
        self._handle(None)

    def _handle(self, body: Any) -> None:
        owner = self.server.owner
        owner.requests.append(self.path)
        if "Range" in self.headers:
            owner.asked_ranges.append(self.headers["Range"])
        owner.authorizations.append(self.headers.get("Authorization"))
        fault = owner.take_fault(self.path)
        if fault is not None and fault.kind == "hang":
            owner.closing.wait()
        if fault is not None and fault.kind in ("hang", "refuse"):
            self.close_connection = True
            return
        if fault is not None and fault.kind.isdigit():
            self._send(int(fault.kind), b"", fault.headers)
            return
        status, content, headers = self._answer(body)
        sent = content
        if fault is not None and fault.kind == "wrong-bytes":
            sent = content[:-1] + bytes([content[-1] ^ 1])
        elif fault is not None and fault.kind == "garbage":
            sent = content = b"<html>" + b"\xff\x00" * 50
        elif fault is not None and fault.kind == "half":
            sent = content[: len(content) // 2]
            self.close_connection = True
        self._send(status, sent, headers, len(content))

    def _ranged(self, content: bytes) -> tuple[int, bytes, dict[str, str]]:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or not self.server.owner.ranges:
            return 200, content, {}
        start, end = int(match[1]), len(content) - 1
        return 206, content[start:], {"Content-Range": f"bytes {start}-{end}/{len(content)}"}

    def _answer(self, body: Any) -> tuple[int, bytes, dict[str, str]]:
        owner = self.server.owner
        if owner.token is not None and self.headers.get("Authorization") != f"Bearer {owner.token}":
            return _json(401, {"type": "/problems/unauthenticated", "title": "Who are you?", "status": 401})
        path = self.path.partition("?")[0]
        if not path.startswith(owner.prefix):
            return 404, b"nothing is served here", {}
        path = path.removeprefix(owner.prefix)
        if path == "/client/lockstep.pyz":
            return 200, owner.client, {"Content-Type": "application/zip"}
        if path == "/v1/resolve":
            return _json(*owner.resolve(body))
        if path == "/v1/fallbacks":
            owner.fallbacks.append(body)
            return _json(200, {"counted": body["reason"]})
        if match := re.fullmatch(r"/v1/operations/([\w-]+)", path):
            return _json(*owner.operation(match[1]))
        match = re.fullmatch(r"/v1/(?:bundles|blobs)/(sha256:[0-9a-f]{64})", path)
        if match and match[1] in owner.blobs:
            if "/blobs/" in path:
                owner.on_blob()
                if owner.blobs_at is not None:
                    return 307, b"", {"Location": f"{owner.blobs_at}{path}?signature=planted-signature"}
            status, content, headers = self._ranged(owner.blobs[match[1]])
            return status, content, {"Content-Type": "application/octet-stream", **headers}
        return _json(404, {"type": "/problems/not-found", "title": "Not found", "status": 404})

    def _send(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


def _json(
    status: int, body: dict[str, Any], headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    kind = "application/json" if status < 400 else "application/problem+json"
    return status, json.dumps(body).encode(), {"Content-Type": kind} | (headers or {})
