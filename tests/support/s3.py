"""S3 on 127.0.0.1: moto, which checks no signature, and Ceph's radosgw, which is a real one."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import obstore
import pytest
from obstore.store import S3Store

from tests.support.postgres import free_port
from tests.support.unmeasured import environment

if TYPE_CHECKING:
    from obstore import HTTP_METHOD  # a name of its stubs alone

BUCKET = "lockstep"
SECRET = "hush-hush-hush"
_ADDRESSES = "[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"


@dataclass(frozen=True)
class S3Server:
    """A running one, with an empty bucket; `environment` is what a client of it needs."""

    endpoint: str
    process: "subprocess.Popen[bytes]"

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "lockstep",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def url(self) -> str:
        """A place in the bucket that nobody else uses."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def uploads(self, listing: str = "?uploads") -> str:
        """The uploads that are not complete, as XML; for a server that checks no signature."""
        headers = {"authorization": "AWS4-HMAC-SHA256 Credential=lockstep/20261120/us-east-1/s3/aws4_request"}
        return httpx.get(f"{self.endpoint}/{BUCKET}{listing}", headers=headers).raise_for_status().text

    def signed(self, method: "HTTP_METHOD", key: str) -> str:
        """The URL of an object in the bucket (or, without a key, of the bucket) that may be used for a minute."""
        store = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id="lockstep",
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )
        return obstore.sign(store, method, key, timedelta(minutes=1))

    def make_bucket(self) -> None:
        httpx.put(self.signed("PUT", ""), timeout=30).raise_for_status()


@contextmanager
def moto() -> Iterator[S3Server]:
    """moto's server, for every day. Skips the test where it is not installed."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        pytest.skip("no S3 here: moto[server] is not installed")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, environment(), Path("/")) as process:
        server = S3Server(f"http://127.0.0.1:{port}", process)
        _until(lambda: _answers(server.endpoint), process)
        server.make_bucket()
        yield server


@contextmanager
def radosgw() -> Iterator[S3Server]:
    """A Ceph of one monitor, one object store in memory and one gateway. Skips the test where it is not installed."""
    missing = [name for name in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no real S3 here: {', '.join(missing)} not on PATH")
    with tempfile.TemporaryDirectory(prefix="lockstep-ceph-") as name, ExitStack() as stack:
        folder = Path(name)
        ports = {which: free_port() for which in ("v2", "v1", "rgw")}
        settings = {**os.environ, "CEPH_ARGS": f"-c {folder}/ceph.conf"}
        (folder / "ceph.conf").write_text(_CEPH.format(folder=folder, fsid=uuid.uuid4(), **ports))
        for part in ("mon", "osd", "rgw", "run"):
            (folder / part).mkdir()

        def run(*command: str) -> None:
            subprocess.run(command, env=settings, cwd=folder, check=True, capture_output=True, timeout=60)

        def start(*command: str) -> "subprocess.Popen[bytes]":
            # Ended in reverse: the gateway first, the monitor last.
            return stack.enter_context(_running(command, settings, folder))

        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        addresses = _ADDRESSES.format(**ports)
        run("ceph-authtool", "--create-keyring", "keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        run("ceph-authtool", "keyring", "--gen-key", "-n", "client.admin", *everything)
        run("monmaptool", "--create", "--addv", "a", addresses, "--fsid", _fsid(folder), "monmap")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
        start("ceph-mon", "-f", "-i", "a")
        osd = str(uuid.uuid4())
        run("ceph", "osd", "new", osd)
        profile = ("mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd")
        run("ceph", "auth", "get-or-create", "osd.0", *profile, "-o", "osd/keyring")
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-f", "-i", "0")
        user = ("--uid=lockstep", "--display-name=lockstep", "--access-key=lockstep", f"--secret-key={SECRET}")
        run("radosgw-admin", "user", "create", *user)
        gateway = start("radosgw", "-f", "-n", "client.admin")
        server = S3Server(f"http://127.0.0.1:{ports['rgw']}", gateway)
        _until(lambda: _answers(server.endpoint), gateway)
        server.make_bucket()
        yield server


@contextmanager
def _running(
    command: "list[str] | tuple[str, ...]", environment: Mapping[str, str], folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not get ready")
        time.sleep(0.1)


def _answers(endpoint: str) -> bool:
    try:
        return httpx.get(endpoint, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _fsid(folder: Path) -> str:
    [line] = [line for line in (folder / "ceph.conf").read_text().splitlines() if line.startswith("fsid")]
    return line.partition("= ")[2]


_CEPH = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
mon data avail warn = 1
mon data avail crit = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
run dir = {folder}/run
log file = {folder}/$name.log
admin socket = {folder}/run/$name.asok
ms bind ipv6 = false
[mon]
mon data = {folder}/mon
mon initial members = a
[osd]
keyring = {folder}/osd/keyring
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd memory target = 939524096
[client]
keyring = {folder}/keyring
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw enable usage log = false
rgw enable ops log = false
rgw gc max objs = 1
rgw lc max objs = 1
rgw run sync thread = false
rgw gc obj min wait = 0
rgw gc processor period = 5
"""
