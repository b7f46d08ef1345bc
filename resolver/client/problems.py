"""Answers that are no success, turned into what they mean for a fetch (RFC 9457, the table in the contract)."""

from __future__ import annotations

import json

from resolver.client.errors import FetchError, Mismatch, NotAllowed, Refused, Unavailable, Unknown
from resolver.client.retries import Passing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PASSING = frozenset({408, 425, 429})


def failure(status: int, headers: Mapping[str, str], body: bytes, asked: str) -> FetchError | Passing:
    """What an answer to `asked` (`POST /v1/resolve`) with a status that is no success means."""
    return problem(_parsed(body), status, asked, retry_after(headers))


def problem(facts: Mapping[str, object], status: int, asked: str, pause: float = 0.0) -> FetchError | Passing:
    """What a problem's facts mean; where trying again may pass, it is to be after a `pause` of seconds."""
    title, detail = facts.get("title"), facts.get("detail")
    message = ": ".join(str(part) for part in (title, detail) if part) or f"{asked} was answered with status {status}"
    found = facts.get("hints")
    hints = [
        line for hint in (found if isinstance(found, list) else []) if hint != detail for line in str(hint).splitlines()
    ]
    if identifier := facts.get("request_id"):
        hints.append(f"request_id: {identifier}")
    wrong = str(facts.get("type", "")).endswith("digest-mismatch")
    error = (Mismatch if wrong else _error(status))(message, tuple(hints))
    passing = status in _PASSING or (status >= 500 and facts.get("retryable") is not False)
    return Passing(error, pause) if passing else error


def _error(status: int) -> type[FetchError]:
    if status in (401, 403):
        return NotAllowed
    if status in (413, 422):
        return Refused
    return Unknown if status == 404 else Unavailable


def _parsed(body: bytes) -> dict[str, object]:
    try:
        facts = json.loads(body)
    except ValueError:  # a proxy in between answers in its own words
        return {}
    return facts if isinstance(facts, dict) else {}


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3), 0 where there is none that can be read. Names of
    headers are in lower case."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    if not value:
        return 0.0
    import email.utils
    import time

    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
