"""The HTTP side of the test index: right answers, and every way in which one goes wrong."""

import base64
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.index_pages import Answer, html_page, project_html, project_json, ranged

if TYPE_CHECKING:
    from tests.support.index import PackageIndex

_JSON = "application/vnd.pypi.simple.v1+json"
_DRIP = 0.05  # seconds from one byte to the next


class IndexServer(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 512

    def __init__(self, index: "PackageIndex") -> None:
        self.index = index
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that are kept alive, so that their threads end too."""
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the other end was faster
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away is no error here
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: IndexServer

    def do_GET(self) -> None:
        index = self.server.index
        index.requests.append(self.path)
        index.authorizations.append(self.headers.get("Authorization"))
        fault = index.take_fault(self.path)
        if isinstance(fault, Answer):
            self._canned(fault)
        elif fault is None:
            self._answer()
        else:
            getattr(self, "_fault_" + fault.replace("-", "_"))()

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def _answer(self, spoil: Callable[[bytes], bytes] = lambda body: body) -> None:
        status, content_type, body, headers = self._content()
        if status == 200 and "Range" in self.headers and "Accept-Ranges" in headers:
            status, body, headers = ranged(self.headers["Range"], body, headers)
        body = spoil(body) if status in {200, 206} else body
        self._head(status, content_type, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, content_type: str, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _content(self) -> tuple[int, str, bytes, dict[str, str]]:
        """Status, content type, body and further headers of the right answer."""
        index = self.server.index
        if index.auth is not None:
            expected = "Basic " + base64.b64encode(":".join(index.auth).encode()).decode()
            if self.headers.get("Authorization") != expected:
                return 401, "text/plain", b"who are you?\n", {"WWW-Authenticate": 'Basic realm="packages"'}
        path, _, query = self.path.partition("?")
        if query.endswith(".metadata"):  # pip puts the suffix behind the query
            path, query = path + ".metadata", query.removesuffix(".metadata")
        if path == "/simple":
            return 301, "text/plain", b"", {"Location": "/simple/"}
        if path == "/simple/":
            return self._page({"projects": [{"name": name} for name in sorted(index.projects)]}, self._list_html())
        if match := re.fullmatch(r"/simple/([^/]+)(/?)", path):
            if not match[2]:
                return 301, "text/plain", b"", {"Location": f"{path}/"}
            files = index.files_of(match[1])
            if files is not None:
                return self._page(project_json(match[1], files, index.upload_times), project_html(files))
        if match := re.fullmatch(r"/files/([^/]+?)(\.metadata)?", path):
            file = index.file(match[1])
            if file is not None and query != file.query:
                return 403, "text/plain", b"the signature is missing\n", {}
            if file is not None and match[2] is None:
                return 200, "application/octet-stream", file.content, {"Accept-Ranges": "bytes"}
            if file is not None and file.metadata is not None:
                return 200, "application/octet-stream", file.metadata, {}
        return 404, "text/plain", b"not here\n", {}

    def _page(self, body: dict[str, Any], text: str) -> tuple[int, str, bytes, dict[str, str]]:
        accept = self.headers.get("Accept", "")
        headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
        if "application/vnd.pypi.simple." in accept and "+json" in accept and not self.server.index.html_only:
            return 200, _JSON, json.dumps({"meta": {"api-version": "1.1"}, **body}).encode(), headers
        return 200, "text/html; charset=utf-8", text.encode(), headers

    def _list_html(self) -> str:
        names = sorted(self.server.index.projects)
        return html_page([f'<a href="/simple/{name}/">{name}</a>' for name in names])

    def _canned(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)  # "Connection: close" makes the end of the body the end of the connection
        if "Connection" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _fault_500(self) -> None:
        self._head(500, "text/plain", 0, {})

    def _fault_404(self) -> None:
        self._head(404, "text/plain", 0, {})

    def _fault_garbage(self) -> None:
        self._answer(spoil=lambda body: b"\x00\xff{garbage" * 8)

    def _fault_wrong_bytes(self) -> None:
        self._answer(spoil=_flip_one_bit)

    def _fault_half(self) -> None:
        status, content_type, body, headers = self._content()
        self._head(status, content_type, len(body), headers)
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def _fault_hang(self) -> None:
        self.server.index.closing.wait()
        self.close_connection = True

    def _fault_slow(self) -> None:
        status, content_type, body, headers = self._content()
        self._head(status, content_type, len(body), headers)
        for start in range(len(body)):
            if self.server.index.closing.wait(_DRIP):
                break
            self.wfile.write(body[start : start + 1])
        self.close_connection = True

    def _fault_refuse(self) -> None:
        self.close_connection = True


def _flip_one_bit(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
