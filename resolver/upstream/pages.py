"""Project pages of the Simple API (PEP 503, 691), from the first index that has the project."""

import asyncio
import re
import time
import warnings
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from html.parser import HTMLParser
from typing import Annotated, Required
from urllib.parse import urldefrag, urljoin

import httpx
from mousebender import simple
from packaging.utils import NormalizedName
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from resolver.domain.ports import Project, ProjectFile
from resolver.domain.requests import Index
from resolver.single_flight import SingleFlight
from resolver.upstream.transfer import PACE, RETRIES, Pace, Refused, Retries, answer, body, told

# PEP 629 asks for this warning; people can do nothing about it, and stderr is for the log.
warnings.filterwarnings("ignore", category=simple.APIVersionWarning)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HTML = re.compile(r"<(?:!doctype html|html|a)\b", re.IGNORECASE)
_WHOLE_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/[^#]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]*")


class SimplePages:
    """Reads project pages; a page is kept for `fresh_for` seconds, of all pages `most_files` entries at most.

    That a project is missing is never kept: what was just published on a private index must not be taken from a
    public one because of an old answer.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        fresh_for: float = 60.0,
        most_files: int = 50_000,
        body_limit: int = 64 * 1024 * 1024,
        parallel: int = 16,
        seconds: float = 120.0,
        retries: Retries = RETRIES,
        pace: Pace = PACE,
    ) -> None:
        self._client = client
        self._fresh_for = fresh_for
        self._most_files = most_files
        self._body_limit = body_limit
        self._slots = asyncio.Semaphore(parallel)
        self._seconds = seconds
        self._retries = retries
        self._pace = pace
        self._kept: dict[tuple[Index, NormalizedName], tuple[float, Project]] = {}
        self._flights: SingleFlight[tuple[Index, NormalizedName], Project | None] = SingleFlight()

    async def project(self, name: NormalizedName, indexes: tuple[Index, ...]) -> Project | None:
        """The project's page on the first of the indexes that has it, None where none has.

        Raises:
            IndexUnavailable: an index before the one that has it did not answer as an index does.
        """
        for index in indexes:
            read, kept = self._kept.get((index, name), (0.0, None))
            if kept is not None and time.monotonic() - read < self._fresh_for:
                return kept
            project = await self.reread(name, index)
            if project is not None:
                return project
        return None

    async def reread(self, name: NormalizedName, index: Index) -> Project | None:
        """The project's page on this index as it is now. Raises IndexUnavailable."""
        return await self._flights.do((index, name), partial(self._read, name, index))

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def _read(self, name: NormalizedName, index: Index) -> Project | None:
        async with self._slots, told(index, name, self._seconds):
            project = await self._retries.run(partial(self._ask, name, index), index, name)
        self._keep(index, name, project)
        return project

    async def _ask(self, name: NormalizedName, index: Index) -> Project | None:
        url = simple.create_project_url(index.public_url, name)
        try:
            async with answer(self._client, url, index, {"Accept": simple.ACCEPT_SUPPORTED}) as response:
                content = bytearray()
                async with aclosing(body(response, self._body_limit, self._pace)) as chunks:
                    async for chunk in chunks:
                        content += chunk
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise
        # A page can have ten thousand files.
        return await asyncio.to_thread(_parse, response, content, name, index)

    def _keep(self, index: Index, name: NormalizedName, project: Project | None) -> None:
        now = time.monotonic()
        self._kept.pop((index, name), None)
        if project is not None:
            self._kept[index, name] = (now, project)
        files = sum(len(kept.files) for _, kept in self._kept.values())
        for key, (read, kept) in list(self._kept.items()):  # oldest first: a dict keeps the order of insertion
            if files <= self._most_files and now - read < self._fresh_for:
                break
            del self._kept[key]
            files -= len(kept.files)


# Plain dicts: of a project's ten thousand files few are looked at, and as models they cost twice as much to read.
_File = TypedDict(
    "_File",
    {
        "filename": Required[Annotated[str, Field(min_length=1)]],
        "url": Required[str],
        "hashes": Required[dict[str, str]],
        "size": Annotated[int, Field(ge=0)] | None,
        "upload-time": datetime | None,
        "requires-python": str | None,
        "yanked": bool | str,
        "core-metadata": bool | dict[str, str] | None,
        "dist-info-metadata": bool | dict[str, str] | None,
    },
    total=False,
)

# PEP 629: a client must not read another major version; a newer minor one it may.
_Meta = TypedDict("_Meta", {"api-version": Annotated[str, Field(pattern=r"^1\.\d+$")]})


class _Page(TypedDict):
    meta: _Meta
    files: list[_File]


_PAGE = TypeAdapter(_Page)


def _project_file(file: _File, base: str) -> ProjectFile:
    """The file of a page that was read at `base`."""
    # PEP 714: `core-metadata` counts wherever it is there; the older name only without it.
    metadata = file.get("core-metadata")
    if metadata is None:
        metadata = file.get("dist-info-metadata")
    uploaded = file.get("upload-time")
    if uploaded is not None and uploaded.tzinfo is None:
        uploaded = uploaded.replace(tzinfo=UTC)  # PEP 700: upload times are UTC
    yanked = file.get("yanked")
    return ProjectFile(
        filename=file["filename"],
        url=_absolute(base, file["url"]),
        sha256=_sha256(file["hashes"]),
        size=file.get("size"),
        upload_time=uploaded,
        requires_python=file.get("requires-python") or None,
        # PEP 691: any true value yanks; a text is the reason.
        yanked=(yanked if isinstance(yanked, str) else "") if yanked else None,
        metadata_hash=(_sha256(metadata) or "" if isinstance(metadata, dict) else "") if metadata else None,
    )


class _UploadTimes(HTMLParser):
    """`data-upload-time` of each link, which mousebender does not read: PEP 700 is about JSON alone, but there are
    indexes that serve nothing else than HTML with it, and uv goes by it. One that is no time says nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.times: list[datetime | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        found = dict(attrs)
        if tag == "a" and found.get("href"):
            uploaded = None
            with suppress(ValueError):
                uploaded = datetime.fromisoformat(found.get("data-upload-time") or "")
            self.times.append(uploaded)


def _parse(response: httpx.Response, content: bytearray, name: NormalizedName, index: Index) -> Project:
    """Raises Refused for what is no page: another content type, half a document, one without its parts."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    try:
        text = content.decode(response.charset_encoding or "utf-8")
        if media_type != simple.ACCEPT_JSON_V1 and not _HTML.search(text):
            raise Refused("answered something that is no page")
        if media_type == simple.ACCEPT_JSON_V1:
            page = _PAGE.validate_json(text)
        else:
            page = _PAGE.validate_python(simple.parse_project_details(text, media_type, name))
            for file, uploaded in zip(page["files"], _UploadTimes(text).times, strict=True):
                file["upload-time"] = uploaded
        base = str(response.url)
        files = tuple(_project_file(file, base) for file in page["files"])
    except (simple.UnsupportedMIMEType, simple.UnsupportedAPIVersion) as error:
        raise Refused(f"answered no page: {str(error)[:200]}") from error
    # Undecodable, no JSON, not as PEP 691 has it; an unknown charset; what html.parser and json say of hostile depth.
    except (ValueError, LookupError, AssertionError, RecursionError) as error:
        raise Refused(f"answered a broken page ({type(error).__name__})") from error
    return Project(name, index, files)


def _absolute(base: str, url: str) -> str:
    """The URL as it is meant on the page at `base`, without a fragment. To take one apart and put it together again
    costs more than all else that is read of a file, so it is done only where it has to be."""
    if _WHOLE_URL.fullmatch(url):
        return url
    folder, slash, name = url.rpartition("/")
    if "#" not in folder and _PLAIN_NAME.fullmatch(name):
        return _folder(base, folder + slash or ".") + name
    return urldefrag(urljoin(base, url)).url


@lru_cache(64)
def _folder(base: str, path: str) -> str:
    return urljoin(base, path)


def _sha256(hashes: dict[str, str]) -> str | None:
    value = hashes.get("sha256", "").lower()
    return value if _SHA256.fullmatch(value) else None
