"""An HTTP server on 127.0.0.1 that fails in one way, whatever it is asked."""

import http.server
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Failing:
    """How: a status and a body, of which only `sent` bytes arrive (None: all) before the connection ends."""

    status: int
    body: bytes = b""
    sent: int | None = None
    silent: bool = False  # takes the request and never answers


class BrokenServer:
    """`requests` has the method and path of each request so far."""

    def __init__(self, how: Failing) -> None:
        self.requests: list[str] = []
        self._done = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def fail(self) -> None:
                outer.requests.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if how.silent:
                    outer._done.wait(60)
                    self.close_connection = True
                    return
                self.send_response(how.status)
                self.send_header("Content-Length", str(len(how.body)))
                self.send_header("Last-Modified", "Fri, 20 Nov 2026 12:00:00 GMT")
                self.send_header("ETag", '"one"')
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(how.body[: how.sent])
                self.close_connection = how.sent is not None

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = fail  # noqa: N815 - http.server's own names

            def log_message(self, *_: object) -> None:
                """Not to the test's output."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _v: BaseException | None, _t: TracebackType | None) -> None:
        self._done.set()
        self._server.shutdown()
        self._server.server_close()
