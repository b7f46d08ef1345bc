"""Blobs as objects in a bucket.

    <prefix>/blobs-v1/
    └── sha256/
        └── 00/ … ff/            the first two digits
            └── <64 digits>      a blob, whole

An object appears whole or not at all, so nothing is renamed: a content of one part is verified and then put, a larger
one is uploaded part by part under its final name, verified on the way, and only then completed. Until then nobody can
see it; what does not verify is aborted. Two writers of one blob both complete it with the same bytes.

Parts of an upload whose process was killed stay in the bucket, unseen, until its lifecycle rule for incomplete
multipart uploads removes them; the library cannot list them. (Azure drops them by itself after a week.)
"""

import asyncio
import hashlib
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError

from storage.blobs.buckets import Bucket, bucket_at
from storage.blobs.files import chunks_of
from storage.blobs.files import failures as file_failures
from storage.blobs.incoming import blocks, verify
from storage.blobs.object_failures import PastTheEnd, brief, failures
from storage.blobs.staging import Staging
from storage.content import CHUNK, Digest
from storage.errors import BlobNotFound, StorageUnavailable
from storage.records import BlobInfo

if TYPE_CHECKING:
    from obstore import AsyncWritableFile, GetOptions  # names of its stubs alone

T = TypeVar("T")

PART = 8 * CHUNK
"""Bytes of a part. Ten thousand parts make an object at most (S3), so the largest blob has 78 GiB."""
_PARTS_AT_ONCE = 2
"""Parts of one blob that are on their way at once; with the one being filled, they are all that is held of it."""
_HEX = re.compile(r"[0-9a-f]{64}")


class ObjectBlobStore:
    """A blob store in a bucket (storage.blob_protocols.BlobStore, BlobLinks). Made by `open`."""

    def __init__(self, bucket: Bucket, prefix: str, scratch: Path) -> None:
        self._bucket = bucket
        self._root = f"{prefix}/blobs-v1/sha256".lstrip("/")
        self._scratch = Staging(scratch)

    @classmethod
    def open(cls, url: str, scratch: Path) -> Self:
        """The store in the bucket at `url`; see `bucket_at`. `scratch` is a folder for files while they are used.
        Asks the bucket nothing yet.

        Raises:
            ValueError: the URL, or the variables that go with it, are wrong.
        """
        bucket, prefix = bucket_at(url)
        return cls(bucket, prefix, scratch)

    async def size(self, digest: Digest) -> int | None:
        """Bytes of the blob, or None where it is not here."""
        try:
            with failures("looking for a blob", digest):
                return (await obstore.head_async(self._bucket, self._key(digest)))["size"]
        except BlobNotFound:
            return None

    async def read(
        self, digest: Digest, start: int = 0, length: int | None = None, most: int = CHUNK
    ) -> AsyncIterator[bytes]:
        """The blob, or a part of it, in chunks. Raises BlobNotFound before the first."""
        if length == 0:  # no range has no bytes
            await self._require(digest)
            return
        try:
            with failures("reading", digest):
                found = await obstore.get_async(self._bucket, self._key(digest), options=_options(start, length))
        except PastTheEnd:
            return
        left = found.range[1] - found.range[0]
        stream = found.stream(min_chunk_size=min(most, CHUNK // 4))
        while left:
            with failures("reading"):
                chunk = await anext(stream, b"")
            if not chunk or len(chunk) > left:
                raise StorageUnavailable("the object store gave another number of bytes than it announced")
            left -= len(chunk)
            for position in range(0, len(chunk), most):
                yield chunk[position : position + most]

    @asynccontextmanager
    async def local(self, digest: Digest) -> AsyncIterator[Path]:
        """A copy, removed at the end. Raises BlobNotFound; DigestMismatch where the object is damaged."""
        hasher = hashlib.sha256()
        size = 0
        async with self._scratch.file() as (path, file):
            async for chunk in self.read(digest):
                with file_failures("copying a blob"):
                    await asyncio.gather(file.write(chunk), asyncio.to_thread(hasher.update, chunk))
                size += len(chunk)
            verify(digest, hasher.hexdigest(), size)
            with file_failures("copying a blob"):
                await file.flush()
            yield path

    async def write(self, chunks: AsyncIterator[bytes], expected: Digest) -> int:
        """Keep the content if it is the expected one; one that is here already stays, and `chunks` is not asked.

        Raises: DigestMismatch, StorageFull, StorageUnavailable, and whatever `chunks` does; nothing was kept.
        """
        present = await self.size(expected)
        if present is not None:
            return present
        async with aclosing(blocks(chunks, CHUNK)) as incoming:
            first = await _first_part(incoming)
            if len(first) >= PART:
                return await self._upload(first, incoming, expected)
        verify(expected, (await asyncio.to_thread(hashlib.sha256, first)).hexdigest(), len(first))
        await self._put(first, expected)
        return len(first)

    async def add_file(self, path: Path, expected: Digest) -> int:
        """Keep a copy of this file's content if it is the expected one. Raises: as `write`."""
        return await self.write(chunks_of(path), expected)

    async def all(self) -> AsyncIterator[BlobInfo]:
        """Every blob; one that is added or deleted meanwhile may be among them or not."""
        pages = obstore.list(self._bucket, self._root)
        while True:
            with failures("listing blobs"):
                objects = await anext(pages, None)
            if objects is None:
                return
            for found in objects:
                name = found["path"].rpartition("/")[2]
                if _HEX.fullmatch(name):
                    yield BlobInfo(Digest.from_hex(name), found["size"], found["last_modified"])

    async def delete(self, digest: Digest) -> None:
        """Remove the blob if it is here."""
        try:
            with failures("deleting a blob", digest):
                await obstore.delete_async(self._bucket, self._key(digest))
        except BlobNotFound:
            return

    async def quarantine(self, digest: Digest) -> None:
        """Remove a damaged blob if it is here: what is moved aside in a bucket costs as much, and nobody finds it."""
        await self.delete(digest)

    async def ping(self) -> None:
        """Raises StorageUnavailable where the bucket does not answer, is not there or is not ours to list."""
        with failures("listing nothing"):
            await obstore.list_with_delimiter_async(self._bucket, f"{self._root}/ping")

    async def presigned(self, digest: Digest, seconds: int) -> str | None:
        """A URL that answers a GET with the blob for that many seconds; None where the credentials cannot sign."""
        try:
            with failures("signing a link"):
                return await obstore.sign_async(self._bucket, "GET", self._key(digest), timedelta(seconds=seconds))
        except (NotSupportedError, NotImplementedError):  # obstore, of a store or credentials that have no signed URLs
            return None

    async def creates_once(self) -> bool:
        """Whether the store refuses to put an object where there is one, when it is asked to. Leaves nothing behind."""
        key = f"{self._root}/probe-{uuid.uuid4()}"  # not the name of a blob
        with failures("writing a probe"):
            await obstore.put_async(self._bucket, key, b"first", use_multipart=False)
            try:
                await obstore.put_async(self._bucket, key, b"second", mode="create")
            except AlreadyExistsError:
                return True
            except NotImplementedError:  # obstore, of a store that is told to be without conditional writes
                return False
            finally:
                await obstore.delete_async(self._bucket, key)
        return False

    def _key(self, digest: Digest) -> str:
        return f"{self._root}/{digest.hex[:2]}/{digest.hex}"

    async def _require(self, digest: Digest) -> None:
        if await self.size(digest) is None:
            raise BlobNotFound(digest)

    async def _put(self, content: bytes, digest: Digest) -> None:
        try:
            with failures("writing a blob"):
                await obstore.put_async(self._bucket, self._key(digest), content, mode="create")
            return
        except AlreadyExistsError:
            # By another writer of the same bytes, or by a first try whose answer was lost. S3 says so (409) of one
            # that is under way too, which may fail yet.
            if await self.size(digest) is not None:
                return
        except NotImplementedError:  # obstore, of a store that is told to be without conditional writes
            pass  # the same bytes again do no harm
        with failures("writing a blob"):
            await obstore.put_async(self._bucket, self._key(digest), content, use_multipart=False)

    async def _upload(self, block: bytes, others: AsyncIterator[bytes], expected: Digest) -> int:
        hasher = hashlib.sha256()
        size = 0
        async with self._multipart(expected) as upload:
            while block:
                with failures("writing a blob"):
                    await asyncio.gather(upload.write(block), asyncio.to_thread(hasher.update, block))
                size += len(block)
                block = await anext(others, b"")
            verify(expected, hasher.hexdigest(), size)
        return size

    @asynccontextmanager
    async def _multipart(self, digest: Digest) -> AsyncIterator["AsyncWritableFile"]:
        """An upload, completed at the end of the block, aborted where the block fails or is cancelled."""
        upload = obstore.open_writer_async(
            self._bucket, self._key(digest), buffer_size=PART, max_concurrency=_PARTS_AT_ONCE
        )
        try:
            yield upload
        except BaseException as failure:
            try:
                await _to_its_end(upload.__aexit__(type(failure), failure, None))
            except (BaseError, OSError) as aborting:
                failure.add_note(f"its parts stay behind: {brief(aborting)}")
            raise
        with failures("completing a blob"):
            await _to_its_end(upload.close())


async def _first_part(incoming: AsyncGenerator[bytes, None]) -> bytes:
    """As many blocks as make a part, or all there are."""
    part = bytearray()
    while len(part) < PART and (block := await anext(incoming, b"")):
        part += block
    return bytes(part)


def _options(start: int, length: int | None) -> "GetOptions | None":
    if length is not None:
        return {"range": (start, start + length)}
    return {"range": {"offset": start}} if start else None


async def _to_its_end(request: Awaitable[T]) -> T:
    """What the request gives; a caller that is cancelled meanwhile waits for its end. Cut off in the middle, it would
    leave parts behind that nobody can name. The client's own limits bound it."""
    task = asyncio.ensure_future(request)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
