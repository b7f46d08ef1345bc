"""`lockstep doctor` on the webhook's certificate, and on the registry that nodes pull from."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.doctor import Doctor, dated_server, doctor, few_interpreters, index, notes, wrong
from tests.support.certificates import certificate

__all__ = ["doctor", "few_interpreters", "index"]

NAME = "lockstep.lockstep.svc"


class Signer:
    """A CA, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._openssl = shutil.which("openssl", path=os.defpath) or pytest.skip("no openssl here")
        self.ca, self._key = folder / "ca.crt", folder / "ca.key"
        self._run(
            "req",
            "-x509",
            "-new",
            "-nodes",
            *self._new_key(self._key),
            "-out",
            self.ca,
            "-subj",
            "/CN=ca",
            "-days",
            "9",
        )

    def sign(self, name: str = NAME, *, days: int = 90) -> dict[str, Any]:
        """The settings of a webhook with such a certificate."""
        cert, key = self._folder / "tls.crt", self._folder / "tls.key"
        request, extensions = self._folder / "request", self._folder / "extensions"
        extensions.write_text(f"subjectAltName=DNS:{name}")
        self._run("req", "-new", "-nodes", *self._new_key(key), "-out", request, "-subj", "/CN=x")
        signing = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", days, "-extfile", extensions)
        self._run("x509", "-req", "-in", request, "-out", cert, *signing)
        return {
            "webhook_listen": "127.0.0.1:8443",
            "webhook_cert": str(cert),
            "webhook_key": str(key),
            "webhook_server": f"http://{NAME}:8080",
        }

    def _new_key(self, path: Path) -> tuple[Any, ...]:
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", path

    def _run(self, *arguments: Any) -> None:
        argv = [self._openssl, *(str(each) for each in arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    folder = tmp_path / "signer"
    folder.mkdir()
    return Signer(folder)


def test_a_certificate_that_is_good(doctor: Doctor, signer: Signer) -> None:
    found = [each for each in doctor(**signer.sign()) if each.check == "webhook"]
    assert [(each.state, each.told) for each in found] == [("well", f"good for 90 days, for {NAME}")]


def test_a_certificate_that_ends_soon(doctor: Doctor, signer: Signer) -> None:
    (told,) = notes(doctor(**signer.sign(days=2)), "webhook")
    assert "expires in 2.0 days" in told


def test_a_certificate_that_has_expired(doctor: Doctor, signer: Signer) -> None:
    assert "expired" in wrong(doctor(**signer.sign(days=-1)), "webhook").told


def test_a_certificate_for_another_name(doctor: Doctor, signer: Signer) -> None:
    assert NAME in wrong(doctor(**signer.sign("other.lockstep.svc")), "webhook").told


def test_a_certificate_that_api_servers_do_not_trust(doctor: Doctor, signer: Signer, tmp_path: Path) -> None:
    settings = signer.sign()
    other, _ = certificate(tmp_path, "other")
    assert "not signed by" in wrong(doctor(**settings, ca_bundle=other), "webhook").told
    signer.ca.unlink()
    (told,) = notes(doctor(**settings), "webhook")
    assert "cannot be told" in told


def test_a_certificate_without_its_key(doctor: Doctor, signer: Signer) -> None:
    settings = signer.sign()
    Path(settings["webhook_key"]).write_text("no key")
    assert "certificate and key" in wrong(doctor(**settings), "webhook").told


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("lockstep-registry.lockstep.svc:5000/nodes", "name of a Service"),
        ("registry.lockstep.svc.cluster.local/nodes", "name of a Service"),
        ("http://127.0.0.1:9/nodes", "no TLS"),
    ],
)
def test_a_registry_that_nodes_cannot_reach(doctor: Doctor, place: str, told: str) -> None:
    found = [each for each in doctor(webhook_image_registry=place) if each.check == "registry"]
    assert {each.state for each in found} == {"wrong"}
    assert any(told in each.told for each in found)


def test_a_registry_with_a_certificate(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = certificate(tmp_path, "registry")
    with dated_server(tls=pair) as port:
        place = f"127.0.0.1:{port}/nodes"
        told = [each.told for each in doctor(webhook_image_registry=place) if each.check == "registry"]
        assert any("CERTIFICATE_VERIFY_FAILED" in each for each in told)
        monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
        assert "this machine alone" in wrong(doctor(webhook_image_registry=place), "registry").told
