"""What an engine's run has to do with the indexes that it asks: which of them failed, and where it may keep pages."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from resolver.domain.errors import IndexUnavailable
from resolver.domain.redaction import redact
from resolver.domain.requests import Index

URL = re.compile(r"https?://[^\s`'\"()<>,]+")
_SHOWN = 1000  # characters of a cause


def unavailable(indexes: Sequence[Index], url: str, cause: str) -> IndexUnavailable:
    """The error for an index that did not answer for `url` (a project's page or a file) as an index does."""
    pages = {urlsplit(index.url).path.rstrip("/") for index in indexes}
    path = urlsplit(url).path.rstrip("/")
    about = "its pages" if path in pages else unquote(path.rpartition("/")[2])
    return IndexUnavailable(_name(indexes, url), about, redact(" ".join(cause.split()))[:_SHOWN])


def _name(indexes: Sequence[Index], url: str) -> str:
    for index in indexes:
        if url.startswith(index.public_url.rstrip("/")):
            return index.name
    # Files are often on another host than the pages; then one index alone is known to be meant.
    host = urlsplit(url).hostname
    same_host = [index.name for index in indexes if urlsplit(index.url).hostname == host]
    return " or ".join(same_host or [index.name for index in indexes])


def cache_folder(cache: Path, indexes: Sequence[Index]) -> Path:
    """The part of a cache folder that is for these indexes.

    Engines cache what they were served by its URL, without the credentials that it took to be served: two indexes of
    one URL, each open to other namespaces, must not see each other's pages.
    """
    names = json.dumps([index.name for index in indexes]).encode()
    return cache / f"v1-{hashlib.sha256(names).hexdigest()[:16]}"
