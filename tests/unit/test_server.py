"""What the server listens on."""

import socket

import pytest

from resolver.server import listening_on


def test_a_socket_is_listened_on_under_several_descriptors() -> None:
    with listening_on("127.0.0.1:0") as sockets:
        assert len({each.getsockname() for each in sockets}) == 1
        assert len({each.fileno() for each in sockets}) == len(sockets) > 1
        with socket.create_connection(sockets[0].getsockname()) as connection:
            accepted, _ = sockets[-1].accept()
            with accepted:
                assert accepted.getpeername() == connection.getsockname()


def test_a_host_is_listened_on_at_each_of_its_addresses() -> None:
    found = {info[4] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with listening_on("localhost:0") as sockets:
        assert {each.getsockname()[0] for each in sockets} == {address[0] for address in found}


def test_an_address_that_is_taken_is_told_in_a_line() -> None:
    with listening_on("127.0.0.1:0") as sockets:
        taken = f"127.0.0.1:{sockets[0].getsockname()[1]}"
        with pytest.raises(ValueError, match=f"cannot listen on {taken}"), listening_on(taken):
            pytest.fail("listened on twice")
