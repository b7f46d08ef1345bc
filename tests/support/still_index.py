"""The real index held still: a process that passes its pages on, each one ever after as it was first seen.

Behind the real index stand many caches, whose pages can differ by hours: two programs that ask it at one moment may
see different releases. Whoever is to be compared asks this one instead. Files come from where the pages say they are.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from pip._internal.models.index import PyPI  # the engines' own default, which is named nowhere in this project

from tests.support.service import ROOT
from tests.support.unmeasured import environment

_SECONDS = 60


@contextmanager
def still_index() -> Iterator[str]:
    """The address of one that runs, until the end; a process of its own, since the tests' may not reach out."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.still_index"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


class _Pages:
    """What was seen, by path and by what was accepted."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], httpx.Response] = {}
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._client = httpx.Client(timeout=_SECONDS, follow_redirects=True)

    def get(self, path: str, accept: str) -> httpx.Response:
        key = (path, accept)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:  # of two who ask at once, the second sees what the first saw
            if key not in self._seen:
                answer = self._client.get(PyPI.simple_url + path, headers={"Accept": accept})
                if answer.is_server_error:
                    return answer
                self._seen[key] = answer
            return self._seen[key]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pages = _Pages()

    def do_GET(self) -> None:
        page = self.pages.get(self.path, self.headers.get("Accept", "*/*"))
        self.send_response(page.status_code)
        self.send_header("Content-Type", page.headers.get("Content-Type", "text/html"))
        self.send_header("Content-Length", str(len(page.content)))
        self.end_headers()
        self.wfile.write(page.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
