"""What the client shows, to whom, and whom it trusts."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundle_server import BundleServer
from tests.unit.client.conftest import DEMO, DEMO_TREE, Client

TOKEN = "a-token.that-must_not=show"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def test_the_token_is_shown_to_the_service_and_in_no_log(client: Client, server: BundleServer, token: Path) -> None:
    server.token = TOKEN
    server.serve("demo\n", DEMO)
    server.fault("/v1/resolve", "503", times=1)
    done = client.fetch("demo\n", "--token-file", str(token))
    assert done.returncode == 0
    assert set(server.authorizations) == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stderr
    assert not any(TOKEN in path.read_text() for path in client.target.rglob("*") if path.is_file())


def test_the_token_is_read_anew_when_it_was_renewed(client: Client, server: BundleServer, token: Path) -> None:
    server.serve("demo\n", DEMO)

    def on_blob() -> None:
        token.write_text("renewed")

    server.on_blob = on_blob
    assert client.fetch("demo\n", "--token-file", str(token)).returncode == 0
    assert server.authorizations[0] == f"Bearer {TOKEN}"
    assert server.authorizations[-1] == "Bearer renewed"


@pytest.fixture
def store() -> Iterator[BundleServer]:
    """An object store: another origin, where blobs are fetched by a signed URL."""
    with BundleServer() as store:
        store.blobs |= DEMO.blobs
        yield store


def test_a_redirected_blob_is_fetched_without_the_token(
    client: Client, server: BundleServer, store: BundleServer, token: Path
) -> None:
    server.token = TOKEN
    server.serve("demo\n", DEMO)
    server.blobs_at = store.url
    done = client.fetch("demo\n", "--token-file", str(token))
    assert done.returncode == 0
    assert client.tree() == DEMO_TREE
    assert store.count("signature=planted-signature") == len(store.requests) >= 2
    assert set(store.authorizations) == {None}


@pytest.mark.parametrize("kind", ["403", "503", "refuse", "half", "wrong-bytes"])
def test_a_store_that_fails_is_asked_by_a_new_redirect(
    client: Client, server: BundleServer, store: BundleServer, kind: str
) -> None:
    server.serve("demo\n", DEMO)
    server.blobs_at = store.url
    store.fault("/", kind, times=1)
    done = client.fetch("demo\n")
    assert done.returncode == 0
    assert client.tree() == DEMO_TREE
    assert "planted-signature" not in done.stderr


def test_a_store_that_keeps_failing_is_69_and_its_signature_is_not_shown(
    client: Client, server: BundleServer, store: BundleServer
) -> None:
    server.serve("demo\n", DEMO)
    server.blobs_at = store.url
    store.fault("/", "403")
    done = client.fetch("demo\n", "--timeout", "2")
    assert done.returncode == 69
    assert "planted-signature" not in done.stderr


def test_a_redirect_without_end_is_69(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.blobs_at = server.url
    assert client.fetch("demo\n").returncode == 69


@pytest.mark.parametrize("where", ["file:///etc/passwd#", "http://user:s3cret@127.0.0.1:1", "http://127.0.0.1:1/a b"])
def test_a_redirect_to_nowhere_is_69(client: Client, server: BundleServer, where: str) -> None:
    server.serve("demo\n", DEMO)
    server.blobs_at = where
    done = client.fetch("demo\n")
    assert done.returncode == 69
    assert "s3cret" not in done.stderr


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=lockstep"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return certificate, key


def test_a_certificate_is_trusted_only_where_it_is_given(
    pyz: Path, tmp_path: Path, certificate: tuple[Path, Path], token: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with BundleServer(tls=context) as server:
        server.serve("demo\n", DEMO)
        client = Client(pyz, server, tmp_path / "target")
        refused = client.fetch("demo\n", "--token-file", str(token))
        assert refused.returncode == 69
        assert "certificate" in refused.stderr
        assert server.requests == []
        assert client.fetch("demo\n", "--ca-file", str(certificate[0])).returncode == 0
        assert client.tree() == DEMO_TREE
        assert client.fetch("demo\n", "--ca-file", str(certificate[1])).returncode == 0  # in place: nobody is asked
        assert client.fetch("other\n", "--ca-file", str(certificate[1])).returncode == 64
