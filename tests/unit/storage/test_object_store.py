"""What a bucket of blobs promises beyond the contract: uploads that end badly, memory, outages, links, other clouds."""

import asyncio
import base64
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import obstore
import pytest

from storage.blob_protocols import BlobStore
from storage.blobs import buckets
from storage.blobs.buckets import bucket_at
from storage.blobs.filesystem import FilesystemBlobStore
from storage.blobs.object_store import PART, ObjectBlobStore
from storage.blobs.opening import open_blob_store
from storage.content import Digest
from storage.errors import BlobNotFound, DigestMismatch, StorageFull, StorageUnavailable
from tests.contracts.blob_store import LARGE, MIB, chunks, content_of, digests, put
from tests.support.broken_server import BrokenServer, Failing
from tests.support.postgres import free_port
from tests.support.s3 import BUCKET, SECRET, S3Server, moto
from tests.unit.storage.bucket_writer import HALF

ROOT = Path(__file__).parents[3]
SMALL = Digest.of(b"content")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto() as server:
        yield server


@pytest.fixture
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def url(server: S3Server, environment: None) -> str:
    return server.url()


@pytest.fixture
def store(url: str, tmp_path: Path) -> ObjectBlobStore:
    return ObjectBlobStore.open(url, tmp_path)


def broken(server: BrokenServer, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> ObjectBlobStore:
    """A store whose server fails; it asks twice."""
    monkeypatch.setattr(buckets, "_RETRIES", 1)
    monkeypatch.setattr(buckets, "READ_TIMEOUT", timedelta(milliseconds=300))
    for name, value in {"ENDPOINT_URL": server.url, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return ObjectBlobStore.open("s3://bucket/prefix", scratch)


async def enter(store: BlobStore, digest: Digest) -> None:
    async with store.local(digest):
        pytest.fail("entered")


USES: dict[str, Callable[[ObjectBlobStore], Coroutine[Any, Any, object]]] = {
    "size": lambda store: store.size(SMALL),
    "read": lambda store: content_of(store, SMALL),
    "range": lambda store: content_of(store, SMALL, 2, 3),
    "local": lambda store: enter(store, SMALL),
    "write": lambda store: put(store, b"content"),
    "upload": lambda store: put(store, LARGE),
    "list": digests,
    "delete": lambda store: store.delete(SMALL),
    "ping": lambda store: store.ping(),
}


async def test_the_layout_is_the_documented_one(store: ObjectBlobStore, server: S3Server, url: str) -> None:
    for content in (b"content", LARGE):
        digest = await put(store, content)
        prefix = url.removeprefix(f"s3://{BUCKET}/")
        key = f"{prefix}/blobs-v1/sha256/{digest.hex[:2]}/{digest.hex}"
        assert httpx.get(server.signed("GET", key)).content == content


async def test_a_store_at_the_root_of_its_bucket(environment: None, tmp_path: Path, server: S3Server) -> None:
    store = ObjectBlobStore.open(f"s3://{BUCKET}", tmp_path)
    digest = await put(store, b"at the root")
    assert httpx.get(server.signed("GET", f"blobs-v1/sha256/{digest.hex[:2]}/{digest.hex}")).is_success
    assert await digests(store) == {digest}
    await store.delete(digest)


async def test_what_is_not_a_blob_is_not_listed(store: ObjectBlobStore, server: S3Server, url: str) -> None:
    digest = await put(store, b"content")
    note = f"{url.removeprefix(f's3://{BUCKET}/')}/blobs-v1/sha256/ab/note"
    httpx.put(server.signed("PUT", note), content=b"x").raise_for_status()
    assert await digests(store) == {digest}


async def test_an_upload_that_ends_badly_leaves_no_parts(store: ObjectBlobStore, server: S3Server) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield LARGE
        raise ConnectionResetError

    with pytest.raises(DigestMismatch):
        await store.write(chunks(LARGE), Digest.of(b"other"))
    with pytest.raises(ConnectionResetError):
        await store.write(failing(), Digest.of(LARGE))
    assert "<UploadId>" not in server.uploads()
    assert await digests(store) == set()


async def test_a_cancelled_upload_leaves_no_parts(store: ObjectBlobStore, server: S3Server) -> None:
    chance = random.Random(20)
    content = LARGE * 2
    digest = Digest.of(content)
    for _ in range(12):
        writing = asyncio.create_task(store.write(chunks(content, MIB), digest))
        await asyncio.sleep(chance.random() / 5)
        writing.cancel()
        await asyncio.wait([writing])
        # One that was being completed is completed: its bytes were found right.
        if found := await digests(store):
            assert found == {digest}
            assert await content_of(store, digest) == content
            await store.delete(digest)
    # An upload that is cancelled while it is begun may be named on the server alone: it has no parts.
    for upload in server.uploads().split("<Upload>")[1:]:
        key, identifier = (upload.partition(f"<{tag}>")[2].partition("<")[0] for tag in ("Key", "UploadId"))
        assert "<PartNumber>" not in server.uploads(f"/{key}?uploadId={identifier}")


async def test_a_killed_writer_leaves_nothing_to_see(store: ObjectBlobStore, url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.storage.bucket_writer", url, str(tmp_path), "stall"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        assert await store.size(HALF) is None
        process.kill()
    assert await store.size(HALF) is None
    assert await digests(store) == set()
    assert await put(store, b"x" * (40 * MIB)) == HALF


def test_memory_stays_flat_however_large_the_blob(environment: None, url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.storage.bucket_writer", url, str(tmp_path), "large"]
    grown = int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout)
    assert grown < 10 * PART


async def test_a_server_that_dies_in_the_middle_of_an_upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(buckets, "_RETRIES", 1)
    with moto() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = ObjectBlobStore.open(server.url(), tmp_path)

        async def interrupted() -> AsyncIterator[bytes]:
            yield LARGE
            server.process.kill()
            server.process.wait()
            yield LARGE

        with pytest.raises(StorageUnavailable):
            await store.write(interrupted(), Digest.of(LARGE * 2))


@pytest.mark.parametrize("use", USES)
async def test_a_server_that_is_not_there(use: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(buckets, "_RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = ObjectBlobStore.open("s3://bucket/prefix", tmp_path)
    with pytest.raises(StorageUnavailable):
        await USES[use](store)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "how",
    [
        Failing(503, b"<Error><Code>SlowDown</Code></Error>"),
        Failing(500, b"<Error><Code>InternalError</Code></Error>"),
        Failing(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"),
        Failing(200, silent=True),
    ],
    ids=["throttled", "broken", "forbidden", "silent"],
)
async def test_a_server_that_does_not_serve(
    use: str, how: Failing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with BrokenServer(how) as server:
        store = broken(server, monkeypatch, tmp_path)
        with pytest.raises(StorageUnavailable) as caught:
            await USES[use](store)
        assert 0 < len(server.requests) <= 4
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert "X-Amz" not in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "how",
    [Failing(507, b"full"), Failing(403, b"<Error><Code>QuotaExceeded</Code></Error>")],
    ids=["full", "quota"],
)
@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
async def test_a_bucket_without_room(
    how: Failing, content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Unknown(ObjectBlobStore):
        async def size(self, digest: Digest) -> int | None:
            return None  # this server says of everything that it is full

    with BrokenServer(how) as server:
        broken(server, monkeypatch, tmp_path)
        with pytest.raises(StorageFull):
            await put(Unknown.open("s3://bucket", tmp_path), content)


async def test_half_a_body_is_an_outage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with BrokenServer(Failing(200, LARGE, sent=3 * MIB)) as server:
        store = broken(server, monkeypatch, tmp_path)
        for use in ("read", "local"):
            with pytest.raises(StorageUnavailable):
                await USES[use](store)
    assert list(tmp_path.iterdir()) == []


async def test_a_damaged_object_is_no_local_file(
    store: ObjectBlobStore, server: S3Server, url: str, tmp_path: Path
) -> None:
    digest = await put(store, LARGE)
    key = f"{url.removeprefix(f's3://{BUCKET}/')}/blobs-v1/sha256/{digest.hex[:2]}/{digest.hex}"
    httpx.put(server.signed("PUT", key), content=LARGE[:-1] + b"?").raise_for_status()
    with pytest.raises(DigestMismatch):
        await enter(store, digest)
    assert list(tmp_path.iterdir()) == []


async def test_a_local_file_is_gone_afterwards(store: ObjectBlobStore, tmp_path: Path) -> None:
    digest = await put(store, LARGE)
    with pytest.raises(ZeroDivisionError):
        async with store.local(digest) as path:
            assert path.parent == tmp_path
            assert path.stat().st_mode & 0o222 == 0
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


async def test_a_full_scratch_folder_is_storage_full(url: str, small_disk: Path) -> None:
    store = ObjectBlobStore.open(url, small_disk)
    digest = await put(store, LARGE)
    with pytest.raises(StorageFull):
        await enter(store, digest)
    assert list(small_disk.iterdir()) == []


async def test_a_bucket_that_is_not_there(environment: None, tmp_path: Path) -> None:
    store = ObjectBlobStore.open("s3://absent", tmp_path)
    for use in ("ping", "read", "write", "upload", "list"):
        with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
            await USES[use](store)


async def test_a_store_without_conditional_writes(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    store = ObjectBlobStore.open(url, tmp_path)
    assert await content_of(store, await put(store, b"content")) == b"content"


async def test_whether_it_creates_once_is_tried(
    store: ObjectBlobStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await store.creates_once()
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    without = ObjectBlobStore.open(url, tmp_path)
    assert not await without.creates_once()
    objects = [each async for page in obstore.list(bucket_at(url)[0]) for each in page]
    assert not [each for each in objects if "probe" in each["path"]]


@pytest.mark.parametrize(
    "url",
    [
        "s3://hush@bucket/prefix",
        "s3://user:hush@bucket",
        "s3://bucket?key=hush",
        "s3://bucket/../hush",
        "s3://bucket/a//hush",
        "s3://bucket/-/hush/.",
        "s3:///hush",
        "ftp://bucket/hush",
        "https://packages.example.com/hush",
    ],
)
async def test_other_urls_are_refused_and_not_shown(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        await open_blob_store(url, tmp_path)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


async def test_variables_that_do_not_fit_are_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", '{"private_key": "hush"}')
    with pytest.raises(ValueError, match="gs://") as caught:
        await open_blob_store("gs://bucket", tmp_path)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


async def test_a_path_is_a_folder(tmp_path: Path) -> None:
    for where in (tmp_path / "one", str(tmp_path / "two")):
        store = await open_blob_store(where, tmp_path)
        assert isinstance(store, FilesystemBlobStore)
        await store.ping()
        (Path(where) / "blobs-v1").rename(tmp_path / "away")
        with pytest.raises(StorageUnavailable):
            await store.ping()
        shutil.rmtree(tmp_path / "away")


@pytest.fixture(params=["gs", "az"])
def cloud(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[BrokenServer, Path], ObjectBlobStore]:
    """A store in another cloud, whose server stands here."""

    def opened(server: BrokenServer, scratch: Path) -> ObjectBlobStore:
        monkeypatch.setattr(buckets, "_RETRIES", 1)
        monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
        monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lockstep")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(SECRET.encode()).decode())
        return ObjectBlobStore.open(f"{request.param}://bucket/prefix", scratch)

    return opened


# Not "delete": its requests go to Google's own address for batches, wherever the store itself is.
@pytest.mark.parametrize("use", sorted(USES.keys() - {"delete"}))
async def test_other_clouds_that_do_not_serve(
    use: str, cloud: Callable[[BrokenServer, Path], ObjectBlobStore], tmp_path: Path
) -> None:
    with BrokenServer(Failing(503)) as server:
        with pytest.raises(StorageUnavailable):
            await USES[use](cloud(server, tmp_path))
        assert server.requests


async def test_other_clouds_without_the_blob(
    cloud: Callable[[BrokenServer, Path], ObjectBlobStore], tmp_path: Path
) -> None:
    with BrokenServer(Failing(404)) as server:
        store = cloud(server, tmp_path)
        assert await store.size(SMALL) is None
        for use in ("read", "range", "local"):
            with pytest.raises(BlobNotFound):
                await USES[use](store)
        assert all(f"prefix/blobs-v1/sha256/{SMALL.hex[:2]}/{SMALL.hex}" in unquote(path) for path in server.requests)
