"""HTTP/1.1 as servers and proxies speak it, and as none should: every answer here is sent as it stands."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from resolver.client.wire import Answer, Connection, Malformed

ASKED = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextmanager
def answering(*pieces: bytes) -> Iterator[Connection]:
    """A connection to a server that sends these pieces for each request, and hangs up when it has."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):  # the other side may have heard enough
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)  # until the other side has closed

        thread = threading.Thread(target=serve)
        thread.start()
        with closing(Connection("127.0.0.1", listening.getsockname()[1], None)) as connection:
            connection.open(10)
            yield connection
        thread.join(10)


def whole(answer: Answer, size: int = 7) -> bytes:
    content, buffer = b"", memoryview(bytearray(size))
    while count := answer.read_into(buffer):
        content += buffer[:count]
    return content


@pytest.mark.parametrize(
    ("sent", "content", "last"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world", b"hello world", False),
        (b"HTTP/1.1 200\r\ncontent-length:11\r\n\r\nhello worldextra", b"hello world", False),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", b"hi", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", b"", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
            b"hello world",
            False,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", False),
    ],
)
@pytest.mark.parametrize("torn", [False, True], ids=["at once", "byte by byte"])
def test_an_answer_is_read_whole(sent: bytes, content: bytes, last: bool, torn: bool) -> None:
    with answering(*(sent[at : at + 1] for at in range(len(sent))) if torn else [sent]) as connection:
        answer = connection.ask(ASKED, 10)
        assert (whole(answer), answer.ended, answer.last) == (content, True, last)


def test_a_connection_is_used_again() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Name: a\r\nx-name: b\r\n\r\none"
    two = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
    with answering(one + two) as connection:
        first = connection.ask(ASKED, 10)
        assert (first.status, first.headers["x-name"], whole(first)) == (200, "a, b", b"one")
        second = connection.ask(ASKED, 10)
        assert (second.status, whole(second)) == (404, b"two")


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 -20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName: x\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"Name: x\r\n" * 20_000,
    ],
)
def test_what_is_no_http_is_malformed(sent: bytes) -> None:
    with answering(sent) as connection, pytest.raises(Malformed):
        connection.ask(ASKED, 10)


@pytest.mark.parametrize("chunks", [b"x\r\n", b"-1\r\n", b"0x5\r\nhello\r\n", b"2\r\nhello\r\n", b"\r\n", b"f" * 16])
def test_a_chunk_that_is_none_is_malformed(chunks: bytes) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"\r\n") as connection:
        answer = connection.ask(ASKED, 10)
        with pytest.raises(Malformed):
            whole(answer)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_an_answer_that_ends_early_says_so(sent: bytes) -> None:
    with answering(sent) as connection:
        answer = connection.ask(ASKED, 10)
        with pytest.raises(ConnectionResetError):
            whole(answer)
        assert not answer.ended


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_head_that_ends_early_says_so(sent: bytes) -> None:
    with answering(sent) as connection, pytest.raises(ConnectionResetError):
        connection.ask(ASKED, 10)


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = Connection("127.0.0.1", listening.getsockname()[1], None)
        with closing(connection):
            connection.open(10)
            with pytest.raises(TimeoutError):
                connection.ask(ASKED, 0.05)
