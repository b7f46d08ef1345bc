"""What the test index publishes, and its pages: JSON (PEP 691, 700), HTML (PEP 503), parts of files (RFC 9110)."""

import hashlib
import html
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Answer:
    """An answer that a test dictates."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class PublishedFile:
    filename: str
    content: bytes
    version: str
    yanked: str | None
    requires_python: str | None
    upload_time: datetime
    metadata: bytes | None
    query: str

    @property
    def href(self) -> str:
        return f"../../files/{self.filename}" + (f"?{self.query}" if self.query else "")


def project_json(name: str, files: Sequence[PublishedFile], upload_times: bool) -> dict[str, Any]:
    entries = []
    for file in files:
        entry: dict[str, Any] = {
            "filename": file.filename,
            "url": file.href,
            "hashes": {"sha256": hashlib.sha256(file.content).hexdigest()},
            "size": len(file.content),
            "yanked": False if file.yanked is None else file.yanked or True,
            "core-metadata": False,
        }
        if file.requires_python is not None:
            entry["requires-python"] = file.requires_python
        if upload_times:
            entry["upload-time"] = file.upload_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if file.metadata is not None:
            entry["core-metadata"] = {"sha256": hashlib.sha256(file.metadata).hexdigest()}
            entry["dist-info-metadata"] = entry["core-metadata"]
        entries.append(entry)
    return {
        "name": canonicalize_name(name),
        "versions": sorted({file.version for file in files}),
        "files": entries,
    }


def project_html(files: Sequence[PublishedFile]) -> str:
    anchors = []
    for file in files:
        attributes = {"href": f"{file.href}#sha256={hashlib.sha256(file.content).hexdigest()}"}
        if file.requires_python is not None:
            attributes["data-requires-python"] = file.requires_python
        if file.yanked is not None:
            attributes["data-yanked"] = file.yanked
        if file.metadata is not None:
            metadata_hash = "sha256=" + hashlib.sha256(file.metadata).hexdigest()
            attributes["data-core-metadata"] = attributes["data-dist-info-metadata"] = metadata_hash
        text = " ".join(f'{key}="{html.escape(value)}"' for key, value in attributes.items())
        anchors.append(f"<a {text}>{file.filename}</a>")
    return html_page(anchors)


def html_page(anchors: list[str]) -> str:
    head = '<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.1"></head><body>\n'
    return head + "<br>\n".join(anchors) + "\n</body></html>\n"


def core_metadata(wheel: bytes) -> bytes | None:
    """The wheel's METADATA, None where it has none: broken wheels can be published too."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            path = next((path for path in archive.namelist() if path.endswith(".dist-info/METADATA")), None)
            return None if path is None else archive.read(path)
    except (zipfile.BadZipFile, RuntimeError):  # RuntimeError: encrypted, or compressed in an unknown way
        return None


def ranged(asked: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    """The part of the body that a single-range header asks for (RFC 9110, 14.2)."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if match is None or not (match[1] or match[2]):
        return 200, body, headers
    start = int(match[1]) if match[1] else max(0, len(body) - int(match[2]))
    end = min(int(match[2]), len(body) - 1) if match[1] and match[2] else len(body) - 1
    if start > end:
        return 416, b"", {**headers, "Content-Range": f"bytes */{len(body)}"}
    return 206, body[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(body)}"}
