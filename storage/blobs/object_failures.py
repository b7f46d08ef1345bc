"""What an object store's client says went wrong, in the store's words.

The client knows few kinds of error and puts the rest into prose: with addresses and answers, some of them signed. So
nothing of it is shown but the HTTP status and the code that the store gave.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError

from storage.content import Digest
from storage.errors import BlobNotFound, StorageFull, StorageUnavailable

_STATUS = re.compile(r"status(?: code)?:? (\d{3})\b")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"}


class PastTheEnd(Exception):
    """The blob is there, and the part of it that was asked for begins where it ends, or later (HTTP status 416)."""


@contextmanager
def failures(doing: str, blob: Digest | None = None) -> Iterator[None]:
    """Turns what the client raises into StorageFull or StorageUnavailable; where `blob` is given, an object that is
    not there into BlobNotFound, a range that is not there into PastTheEnd. What it raises as an answer passes:
    AlreadyExistsError, NotSupportedError, NotImplementedError."""
    try:
        yield
    except (AlreadyExistsError, NotSupportedError):
        raise
    except (BaseError, OSError) as error:
        status, code = _answer(error)
        if blob is not None and isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
            raise BlobNotFound(blob) from None
        if blob is not None and status == "416":
            raise PastTheEnd from None
        if status == "507" or code in _FULL_CODES:
            raise StorageFull(f"no room left while {doing}: {brief(error)}") from None
        raise StorageUnavailable(f"the object store failed while {doing}: {brief(error)}") from None


def brief(error: BaseException) -> str:
    """What may be shown of what the client raised."""
    return " ".join(part for part in (type(error).__name__, *_answer(error)) if part)


def _answer(error: BaseException) -> tuple[str, str]:
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    return status[1] if status else "", code[1] if code else ""
