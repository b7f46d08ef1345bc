"""A real package index on loopback: the Simple API with its PEPs, made to go wrong at will."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from packaging.metadata import parse_email
from packaging.utils import NormalizedName, canonicalize_name, parse_sdist_filename, parse_wheel_filename

from tests.support.index_pages import Answer, PublishedFile, core_metadata
from tests.support.index_server import IndexServer

Fault = Literal["500", "404", "garbage", "half", "hang", "slow", "refuse", "wrong-bytes"]

_UPLOADED = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class _Fault:
    substring: str
    kind: Fault | Answer
    left: int | None


class PackageIndex:
    """A Simple API over HTTP on 127.0.0.1, in threads of its own, while its context is open.

    JSON (PEP 691) for who asks for it, HTML (PEP 503) otherwise or with `html_only`; yanked files (PEP 592),
    `.metadata` (PEP 658), sizes and, with `upload_times`, upload times (PEP 700); Range on files; keep-alive.
    With `auth`, everything asks for these basic credentials.
    """

    def __init__(self, auth: tuple[str, str] | None = None, html_only: bool = False, upload_times: bool = True) -> None:
        self.auth = auth
        self.html_only = html_only
        self.upload_times = upload_times
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []  # of each request, in the same order
        self.projects: dict[NormalizedName, dict[str, PublishedFile]] = {}
        self.closing = threading.Event()
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = IndexServer(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="package-index")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The index URL, without credentials."""
        return f"http://127.0.0.1:{self.port}/simple"

    @property
    def url_with_auth(self) -> str:
        """The index URL with the credentials that it asks for."""
        userinfo = ":".join(quote(part, safe="") for part in self.auth) + "@" if self.auth else ""
        return f"http://{userinfo}127.0.0.1:{self.port}/simple"

    def add(
        self,
        filename: str,
        content: bytes,
        *,
        yanked: str | None = None,
        requires_python: str | None = None,
        upload_time: datetime | None = None,
        metadata: bool = True,
        query: str = "",
    ) -> None:
        """Publish a file. `metadata`: with its METADATA (wheels alone); `query`: what its URL ends in, insisted on."""
        if filename.endswith(".whl"):
            name, version, _, _ = parse_wheel_filename(filename)
            core = core_metadata(content)
        else:
            name, version = parse_sdist_filename(filename)
            core = None
        if requires_python is None and core is not None:
            requires_python = parse_email(core)[0].get("requires_python")
        file = PublishedFile(
            filename,
            content,
            str(version),
            yanked,
            requires_python,
            upload_time or _UPLOADED,
            core if metadata else None,
            query.lstrip("?"),
        )
        with self._lock:
            self.projects.setdefault(name, {})[filename] = file

    def remove(self, filename: str) -> None:
        """Take a file away, its page's entry included."""
        with self._lock:
            for files in self.projects.values():
                files.pop(filename, None)

    def count(self, substring: str) -> int:
        """How many requests so far had this in their path."""
        return sum(substring in path for path in list(self.requests))

    def fault(self, substring: str, kind: Fault, times: int | None = None) -> None:
        """Answer the next `times` requests (None: all) whose path contains `substring` in this wrong way.

        A `$` stands for the end of the path: a wheel, but not its `.metadata`.
        """
        with self._lock:
            self._faults.append(_Fault(substring, kind, times))

    def answer(
        self,
        substring: str,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """As `fault`, with this very answer. Without a Content-Length where `headers` has a `Connection`."""
        with self._lock:
            self._faults.append(_Fault(substring, Answer(status, body, headers or {}), times))

    def clear_faults(self) -> None:
        with self._lock:
            self._faults.clear()

    def take_fault(self, path: str) -> Fault | Answer | None:
        with self._lock:
            for fault in self._faults:
                if fault.substring in f"{path}$" and fault.left != 0:
                    if fault.left is not None:
                        fault.left -= 1
                    return fault.kind
        return None

    def files_of(self, project: str) -> list[PublishedFile] | None:
        with self._lock:
            files = self.projects.get(canonicalize_name(project))
            return None if files is None else sorted(files.values(), key=lambda file: file.filename)

    def file(self, filename: str) -> PublishedFile | None:
        with self._lock:
            return next((files[filename] for files in self.projects.values() if filename in files), None)
