"""Wheels from package indexes into the blob store, each once."""

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx

from resolver.domain.errors import ContentMismatch, IndexUnavailable, InvalidWheel
from resolver.domain.ports import Exclusive, ProjectFile, WheelReference
from resolver.single_flight import SingleFlight
from resolver.upstream.metadata import METADATA_LIMIT, check_metadata, read_metadata
from resolver.upstream.pages import SimplePages
from resolver.upstream.transfer import PACE, RETRIES, Pace, Passing, Refused, Retries, TooLarge, answer, body, told
from storage.blob_protocols import BlobReader, BlobWriter
from storage.content import Digest
from storage.errors import DigestMismatch
from storage.records import Lease

# The bytes as published: a wheel is compressed already.
_AS_PUBLISHED = {"Accept-Encoding": "identity"}


class WheelStore(BlobReader, BlobWriter, Protocol):
    """Where wheels are kept."""


class FetchObserver(Protocol):
    """Is told how each fetch ended."""

    def fetched(self, result: str, bytes: int) -> None:  # noqa: A002 - what is counted
        """`result`: fetched, present, mismatch, unavailable or failed; `bytes` that were kept by it."""
        ...


class WheelDownloads:
    """Brings wheels into the store: streamed, hashed by the store on the way in, visible whole or not at all.

    Calls for one digest share one download, which belongs to none of them: a caller that goes away harms nobody.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        pages: SimplePages,
        store: WheelStore,
        exclusive: Exclusive,
        *,
        parallel: int = 16,
        size_limit: int = 2 * 1024**3,
        seconds: float = 1800.0,
        retries: Retries = RETRIES,
        pace: Pace = PACE,
        observer: FetchObserver | None = None,
    ) -> None:
        self._client = client
        self._pages = pages
        self._store = store
        self._exclusive = exclusive
        self._slots = asyncio.Semaphore(parallel)
        self._size_limit = size_limit
        self._seconds = seconds
        self._retries = retries
        self._pace = pace
        self._observer = observer
        self._flights: SingleFlight[Digest, None] = SingleFlight()

    async def fetch(self, wheel: WheelReference) -> None:
        """See to it that the wheel is in the blob store; one that is there is not fetched again.

        Raises:
            IndexUnavailable: it could not be had.
            ContentMismatch: what came, or what the index has under this name now, is not what the lock names.
            InvalidWheel: it is over the size limit.
            StorageFull: no room (storage.errors).
        """
        await self._flights.do(wheel.digest, partial(self._fetch, wheel))

    async def metadata(self, wheel: WheelReference, published: ProjectFile | None) -> bytes:
        """The wheel's METADATA: from the index where it serves it with a hash (PEP 658), else out of the wheel.

        Raises: as `fetch`, and InvalidWheel where the wheel has none, or one of another project or version.
        """
        content = await self._published_metadata(wheel, published)
        if content is None:
            await self.fetch(wheel)
            async with self._store.local(wheel.digest) as path:
                content = await asyncio.to_thread(read_metadata, path, wheel)
        await asyncio.to_thread(check_metadata, content, wheel)
        return content

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def _fetch(self, wheel: WheelReference) -> None:
        result, size, fetched = "failed", 0, False

        async def lead(_: Lease | None) -> int:
            # No fence: the store takes only what the digest names, however late.
            nonlocal fetched
            fetched = True
            async with told(wheel.index, wheel.filename, self._seconds):
                return await self._download(wheel)

        try:
            if await self._store.size(wheel.digest) is not None:
                result = "present"
                return
            async with self._slots:
                kept = await self._exclusive.once(f"wheel:{wheel.digest}", lambda: self._store.size(wheel.digest), lead)
            result, size = ("fetched", kept) if fetched else ("present", 0)
        except ContentMismatch:
            result = "mismatch"
            raise
        except IndexUnavailable:
            result = "unavailable"
            raise
        finally:
            if self._observer is not None:
                self._observer.fetched(result, size)

    async def _download(self, wheel: WheelReference) -> int:
        try:
            return await self._insist(wheel.url, wheel)
        except Refused as refusal:
            if refusal.status is None:
                raise
            # A lock's URL holds no signature and outlives where files are kept; the page has the URL of today.
            url = await self._url_of_today(wheel)
            if url is None or url == wheel.url:
                raise
        return await self._insist(url, wheel)

    async def _insist(self, url: str, wheel: WheelReference) -> int:
        return await self._retries.run(partial(self._stream, url, wheel), wheel.index, wheel.filename)

    async def _stream(self, url: str, wheel: WheelReference) -> int:
        try:
            async with (
                answer(self._client, url, wheel.index, _AS_PUBLISHED) as response,
                aclosing(body(response, self._size_limit, self._pace)) as chunks,
            ):
                try:
                    return await self._store.write(chunks, wheel.digest)
                except DigestMismatch as error:
                    # httpx sees that a body is cut off by its length; one without a length just ends.
                    if "Content-Length" not in response.headers and wheel.size is not None and error.size < wheel.size:
                        raise Passing(f"the body ended after {error.size} of {wheel.size} bytes") from error
                    raise ContentMismatch(wheel.filename, wheel.index.name, error.expected, error.actual) from error
        except TooLarge as error:
            raise InvalidWheel(wheel.filename, error.cause) from error

    async def _url_of_today(self, wheel: WheelReference) -> str | None:
        project = await self._pages.reread(wheel.name, wheel.index)
        for file in project.files if project else ():
            if file.filename == wheel.filename:
                if file.sha256 not in {None, wheel.digest.hex}:
                    raise ContentMismatch(wheel.filename, wheel.index.name, wheel.digest, f"sha256:{file.sha256}")
                return file.url
        return None

    async def _published_metadata(self, wheel: WheelReference, published: ProjectFile | None) -> bytes | None:
        """The file beside the wheel that PEP 658 describes; None where there is none, or none with a hash."""
        if published is None or not published.metadata_hash:
            return None
        parts = urlsplit(published.url)
        url = urlunsplit(parts._replace(path=parts.path + ".metadata"))
        about = f"{wheel.filename}.metadata"
        async with self._slots, told(wheel.index, about, self._seconds):
            try:
                content = await self._retries.run(partial(self._small, url, wheel), wheel.index, about)
            except Refused:  # the page promised what is not there; the wheel has it
                return None
        digest = Digest.of(content)
        if digest.hex != published.metadata_hash:
            raise ContentMismatch(about, wheel.index.name, f"sha256:{published.metadata_hash}", digest)
        return content

    async def _small(self, url: str, wheel: WheelReference) -> bytes:
        content = bytearray()
        async with (
            answer(self._client, url, wheel.index, {}) as response,
            aclosing(body(response, METADATA_LIMIT, self._pace)) as chunks,
        ):
            async for chunk in chunks:
                content += chunk
        return bytes(content)
