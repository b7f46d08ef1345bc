"""The API server's answers, and what is no answer of one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from resolver.kubernetes import ApiFault, ApiServer
from tests.support.cluster import cluster


@contextmanager
def answering(folder: Path, status: int, content: bytes) -> Iterator[ApiServer]:
    """Something that answers everything with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    (folder / "token").write_text("token")
    with cluster(folder):  # for a CA
        pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield ApiServer(f"http://127.0.0.1:{server.server_port}", folder)
    server.shutdown()
    server.server_close()
    thread.join()


async def fault(server: ApiServer) -> ApiFault:
    with pytest.raises(ApiFault) as caught:
        await server.call("GET", "/version")
    return caught.value


async def test_an_answer(tmp_path: Path) -> None:
    with answering(tmp_path, 200, b'{"major": "1"}') as server:
        assert await server.call("GET", "/version") == {"major": "1"}


@pytest.mark.parametrize(
    ("status", "content", "told", "may_pass"),
    [
        (403, b'{"message": "jobs.batch is forbidden"}', "jobs.batch is forbidden", False),
        (429, b'{"reason": "TooManyRequests"}', "TooManyRequests", True),
        (503, b"<html>no upstream</html>", "status 503", True),
        (404, b"not found", "status 404", False),
        (200, b"<html>a proxy has something to say</html>", "no JSON object", True),
        (200, b"[]", "no JSON object", True),
        (200, b"[" * 100_000, "no JSON object", True),
        (200, b" " * (5 << 20), "more than", True),
        (302, b"", "no JSON object", True),
        (500, b'{"message": "https://me:hunter2@etcd.example.com"}', "etcd.example.com", True),
    ],
)
async def test_what_is_none(tmp_path: Path, status: int, content: bytes, told: str, may_pass: bool) -> None:
    with answering(tmp_path, status, content) as server:
        found = await fault(server)
    assert told in str(found)
    assert found.may_pass is may_pass
    assert "hunter2" not in str(found)


async def test_a_ca_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    (tmp_path / "ca.crt").write_text("not PEM")
    assert "cannot be read" in str(await fault(ApiServer("https://127.0.0.1:9", tmp_path)))


async def test_another_who_answers_in_its_place_is_not_shown_the_token(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    with cluster(ours), cluster(other) as stranger:
        assert "does not answer" in str(await fault(ApiServer(stranger.url, ours)))
        assert stranger.asked == []
