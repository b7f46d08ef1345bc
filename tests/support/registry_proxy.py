"""In front of a real registry: asks for a bearer token, and goes wrong in the ways that a test says."""

import base64
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import httpx

_TOKEN = "a-token-for-" + "one-push"


class RegistryProxy:
    """`with RegistryProxy("127.0.0.1:5000") as proxy:`; with a `login` it wants a token, and gives one for that login.

    `fault(method, path)` is asked of every request: a status to answer it with instead, 0 to hang up, None to go on.
    """

    def __init__(self, behind: str, login: tuple[str, str] | None = None) -> None:
        self.behind = f"http://{behind}"
        self.login = login
        self.fault: Callable[[str, str], int | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.scopes: list[str] = []

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def count(self, method: str, substring: str = "") -> int:
        """How many requests of this method had this in their path."""
        return sum(seen == method and substring in path for seen, path in list(self.requests))


def _handler(proxy: RegistryProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if urlsplit(self.path).path == "/token":
                self._give_token(content.decode())
                return
            proxy.requests.append((self.command, self.path))
            status = proxy.fault(self.command, self.path)
            if status == 0:
                self.close_connection = True
            elif status is not None:
                self._answer(
                    status, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"not now"}]}', {"Retry-After": "0"}
                )
            elif proxy.login and self.headers.get("Authorization") != f"Bearer {_TOKEN}":
                realm = f'Bearer realm="http://{proxy.host}/token",service="here",scope="repository:x:pull,push"'
                self._answer(401, b"{}", {"WWW-Authenticate": realm})
            else:
                self._forward(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - the names that http.server calls

        def _give_token(self, form: str) -> None:
            user, password = proxy.login or ("", "")
            expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
            asked = parse_qs(form or urlsplit(self.path).query)
            # An identity token (OAuth 2's refresh token) stands for both, and is sent in a form.
            shown = asked.get("refresh_token") == [password] if form else self.headers.get("Authorization") == expected
            if not shown:
                self._answer(401, b"{}", {})
                return
            proxy.scopes += asked["scope"]
            self._answer(200, json.dumps({"token": _TOKEN}).encode(), {})

        def _forward(self, content: bytes) -> None:
            kept = {name: value for name, value in self.headers.items() if name not in ("Authorization", "Connection")}
            answer = httpx.request(self.command, proxy.behind + self.path, headers=kept, content=content)
            told = {name: value for name, value in answer.headers.items() if name not in ("content-length", "date")}
            self._answer(answer.status_code, answer.content, told, length=answer.headers.get("content-length"))

        def _answer(self, status: int, content: bytes, headers: Mapping[str, str], length: str | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's own name
            pass

    return Handler
