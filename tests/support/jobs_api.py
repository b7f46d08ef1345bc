"""A cluster as far as Jobs go: an API server that keeps them, over TLS, and says what becomes of their Pods.

It lets through what was granted, to who shows the token that is in the folder now; a Job or a Secret that is none by
Kubernetes' own schemas it refuses, where those are at hand. What a Job's Pod does is told by a test, or by a node that
runs it.
"""

import base64
import importlib
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from resolver.builds.jobs import RIGHTS
from resolver.kubernetes import ApiServer
from tests.support.cluster import POD_TOKEN, certificate

schemas: Any = importlib.import_module("kubernetes_validate") if find_spec("kubernetes_validate") else None

Document = dict[str, Any]

NAMESPACE = "lockstep-builders"
ACCOUNT = "system:serviceaccount:lockstep:lockstep"
KUBERNETES = "1.33"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_PATH = re.compile(
    r"/api(?:s/(?P<group>[a-z]+))?/v1/namespaces/(?P<namespace>[^/]+)/(?P<kind>[a-z]+)(?:/(?P<name>.+))?"
)
_VERBS = {"POST": "create", "GET": "list", "DELETE": "delete"}


class Node(Protocol):
    """What runs the Pods of Jobs."""

    def start(self, job: Document, secret: Document) -> None:
        """Run it; both are there by now."""
        ...

    def status(self, name: str) -> Document | None:
        """The status of the Pod of the Job of this name; None: it has none."""
        ...

    def remove(self, name: str) -> None:
        """The Pod, whatever it does."""
        ...


class Refused(Exception):
    """Answered with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JobsApi:
    """Listens on 127.0.0.1. `folder` is a service account's: token and CA. `refuse` has what stands in the way of a
    verb on a kind of thing, `loses` what is done once without an answer; `used` holds the rights that were needed,
    `deleted` the Jobs that were deleted, `tokens` what builders were given."""

    def __init__(self, folder: Path, node: Node | None = None) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api._answer(self)

            def do_POST(self) -> None:
                api._answer(self)

            def do_DELETE(self) -> None:
                api._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.granted = set(RIGHTS)
        self.used: list[tuple[str, str, str]] = []
        self.namespace = NAMESPACE
        self.refuse: dict[tuple[str, str], Callable[[], None]] = {}
        self.loses: list[tuple[str, str]] = []
        self.jobs: dict[str, Document] = {}
        self.secrets: dict[str, Document] = {}
        self.pods: dict[str, Document] = {}
        self.deleted: list[str] = []
        self.tokens: list[str] = []
        self._begun: dict[str, float] = {}
        self._node = node
        self._lock = threading.RLock()
        cert, key = certificate(folder)
        (folder / "ca.crt").write_bytes(cert.read_bytes())
        (folder / "token").write_text(POD_TOKEN)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.server = ApiServer(f"https://127.0.0.1:{self._http.server_port}", folder)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Never again."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def job(self) -> Document:
        """The one Job that there is."""
        (job,) = self.jobs.values()
        return job

    def show(self, **status: Any) -> None:
        """The one Job's Pod has this status from now on."""
        self.pods[self.job["metadata"]["name"]] = status

    # --- The API ------------------------------------------------------------------------------------------------------

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"] or 0))
        try:
            status, answer = 200, self._answered(request, body)
        except Refused as refused:
            status = refused.status
            answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(refused)}
        content = json.dumps(answer).encode()
        with suppress(OSError):  # whoever asked may be gone by now
            request.send_response(status)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)

    def _answered(self, request: BaseHTTPRequestHandler, body: bytes) -> Document:
        if request.headers["Authorization"] != f"Bearer {(self.server.folder / 'token').read_text().strip()}":
            raise Refused(401, "Unauthorized")
        url = urlsplit(request.path)
        query = {name: value for name, (value,) in parse_qs(url.query).items()}
        document = json.loads(body) if body else {}
        if url.path == _REVIEWS and request.command == "POST":
            return self._reviewed(document)
        match = _PATH.fullmatch(url.path)
        if match is None:
            raise Refused(404, "the server could not find the requested resource")
        verb = "get" if match["name"] and request.command == "GET" else _VERBS[request.command]
        group, kind = match["group"] or "", match["kind"]
        with self._lock:
            self._permit(group, kind, verb, match["namespace"])
            answer = self._done(kind, verb, match["name"] or "", document, query)
            if (kind, verb) in self.loses:
                self.loses.remove((kind, verb))
                raise Refused(504, "the request timed out")
            return answer

    def _permit(self, group: str, kind: str, verb: str, namespace: str) -> None:
        if (group, kind, verb) not in self.granted or namespace != NAMESPACE:
            name = f"{kind}.{group}".rstrip(".")
            raise Refused(
                403,
                f'{name} is forbidden: User "{ACCOUNT}" cannot {verb} resource "{kind}" in API group "{group}" '
                f'in the namespace "{namespace}"',
            )
        self.used.append((group, kind, verb))
        if namespace != self.namespace and verb == "create":
            raise Refused(404, f'namespaces "{namespace}" not found')
        self.refuse.get((kind, verb), lambda: None)()

    def _done(self, kind: str, verb: str, name: str, document: Document, query: dict[str, str]) -> Document:
        match kind, verb:
            case "jobs", "create":
                return self._create_job(document, dry=query.get("dryRun") == "All")
            case "secrets", "create":
                return self._create_secret(document)
            case "jobs", "get":
                return self._in_time(self._found(name))
            case "pods", "list":
                selected = query["labelSelector"].removeprefix("batch.kubernetes.io/job-name=")
                return {"kind": "PodList", "apiVersion": "v1", "items": self._pods(selected)}
            case "jobs", "delete":
                assert query == {"propagationPolicy": "Background"}
                self._delete(self._found(name))
                return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        raise Refused(405, "the server does not allow this method on the requested resource")

    def _create_job(self, document: Document, *, dry: bool) -> Document:
        _judge(document)
        if document["metadata"]["name"] in self.jobs:
            raise Refused(409, f'jobs.batch "{document["metadata"]["name"]}" already exists')
        made = {**document, "metadata": {**document["metadata"], "uid": str(uuid.uuid4())}}
        if not dry:
            self.jobs[document["metadata"]["name"]] = made
            self._begun[document["metadata"]["name"]] = time.monotonic()
        return made

    def _in_time(self, job: Document) -> Document:
        """As the Jobs' own controller: one that is out of time has failed, and its Pod goes."""
        name, seconds = job["metadata"]["name"], job["spec"]["activeDeadlineSeconds"]
        if "status" not in job and time.monotonic() > self._begun[name] + seconds:
            told = {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
            job["status"] = {"failed": 1, "conditions": [{"type": "Failed", "status": "True", **told}]}
            self.pods.pop(name, None)
            if self._node is not None:
                self._node.remove(name)
        return job

    def _create_secret(self, document: Document) -> Document:
        _judge(document)
        (owner,) = document["metadata"]["ownerReferences"]
        assert self._found(owner["name"])["metadata"]["uid"] == owner["uid"]
        if document["metadata"]["name"] in self.secrets:
            raise Refused(409, f'secrets "{document["metadata"]["name"]}" already exists')
        self.secrets[document["metadata"]["name"]] = document
        self.tokens.append(base64.b64decode(document["data"]["token"]).decode())
        if self._node is not None:
            self._node.start(self._found(owner["name"]), document)
        return document

    def _found(self, name: str) -> Document:
        if name not in self.jobs:
            raise Refused(404, f'jobs.batch "{name}" not found')
        return self.jobs[name]

    def _pods(self, name: str) -> list[Document]:
        if name not in self.jobs:
            return []
        status = self._node.status(name) if self._node is not None else self.pods.get(name)
        if status is None:
            return []
        metadata = {"name": f"{name}-x2x7k", "creationTimestamp": datetime.now(UTC).isoformat()}
        return [{"metadata": metadata, "status": status}]

    def _delete(self, job: Document) -> None:
        name = job["metadata"]["name"]
        # What it owns goes with it.
        self.secrets = {
            each: secret
            for each, secret in self.secrets.items()
            if secret["metadata"]["ownerReferences"][0]["uid"] != job["metadata"]["uid"]
        }
        del self.jobs[name]
        self.deleted.append(name)
        if self._node is not None:
            self._node.remove(name)

    def _reviewed(self, document: Document) -> Document:
        asked = document["spec"]["resourceAttributes"]
        wanted = (asked["group"], asked["resource"], asked["verb"])
        allowed = wanted in self.granted and asked["namespace"] == NAMESPACE
        return {**document, "status": {"allowed": allowed}}


def _judge(document: Document) -> None:
    if schemas is None:
        return
    try:
        schemas.validate(document, KUBERNETES, strict=True)
    except schemas.ValidationError as error:
        raise Refused(422, f"it is invalid: {error.message}") from None


@contextmanager
def jobs_api(folder: Path, node: Node | None = None) -> Iterator[JobsApi]:
    """One that answers while the context is open."""
    api = JobsApi(folder, node)
    api.start()
    try:
        yield api
    finally:
        api.stop()
