"""The one place that takes credentials out of text. Used at every edge: logs, errors, locks, answers."""

import re

_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.\-]*://)[^\s/?#@'\"<>]*(?:@[^\s/?#@'\"<>]*)*@")
_QUERY = re.compile(r"(?P<before>[a-zA-Z][a-zA-Z0-9+.\-]*://[^\s?#'\"<>]*)\?[^\s#'\"<>)\]}`]*")
_BEARER = re.compile(r"(?i)\b(?P<kind>bearer|basic|token)\s+[A-Za-z0-9._~+/=\-]{6,}")
_ASSIGNED = re.compile(
    r"(?i)(?P<name>\b[\w\-]*(?:password|passwd|secret|token|api[_\-]?key|authorization|signature)[\w\-]*)"
    r"(?P<equals>\s*[=:]\s*)(?!\s|\[redacted\])[^\s&,;'\"]+"
)


def redact(text: str) -> str:
    """The text without URL userinfo, URL queries, tokens and what is assigned to names like `password`."""
    text = _USERINFO.sub(r"\g<scheme>", text)
    text = _QUERY.sub(r"\g<before>", text)
    text = _BEARER.sub(r"\g<kind> [redacted]", text)
    return _ASSIGNED.sub(r"\g<name>\g<equals>[redacted]", text)
