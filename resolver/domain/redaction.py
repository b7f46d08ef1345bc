"""The one place that takes credentials out of text. Used at every edge: logs, errors, locks, answers.

Takes time in proportion to the text, whatever is in it: strangers write some of what is redacted.
"""

import re
from collections.abc import Iterator

_BLANK = re.compile(r"(\s+)")
_WORD = re.compile(r"\S*")
_AUTHORITY = re.compile(r"[^/?#'\"<>]*")
_PORT = re.compile(r"[^:]*:\d{0,5}|\[[0-9a-fA-F:.]*\](?::\d{0,5})?")
_QUERY = re.compile(r"\?[^#'\"<>)\]}`]*")
_BEARER = re.compile(r"(?i)\b(?P<kind>bearer|basic|token)\s+[A-Za-z0-9._~+/=\-]{6,}")
# RFC 7519: as a Pod's is, wherever it stands. A run of such letters is looked at once, from its beginning.
_JWT = re.compile(r"(?<![A-Za-z0-9_\-])eyJ[A-Za-z0-9_\-]++\.[A-Za-z0-9_\-]++\.[A-Za-z0-9_\-]*+")
_NAMED = re.compile(
    r"(?<![\w\-])(?P<name>[\w\-]++)['\"]?\s{0,8}(?:=(?!=)|:)\s{0,8}(?P<quote>['\"]?)"
)  # `==`: a version
# The telling word ends the name, or a new word begins: `tokenizers` is a package, `secretAccessKey` a secret.
_TELLING = re.compile(r"(?i:password|passwd|secret|token|api[_\-]?key|authorization|signature)s?(?:[A-Z_\-]|$)")
_VALUES = {
    "": re.compile(r"(?!\[redacted\])(?:(?i:bearer|basic|digest|token)\s{1,8})?[^\s&,;'\"]+"),
    "'": re.compile(r"(?!\[redacted\])(?:[^'\\\n]|\\.)+"),
    '"': re.compile(r"(?!\[redacted\])(?:[^\"\\\n]|\\.)+"),
}

_ROUNDS = 5


def redact(text: str) -> str:
    """The text without URL userinfo, URL queries, tokens and what is assigned to names like `password`."""
    for _ in range(_ROUNDS):
        # What is left where something was taken out may read as a credential itself.
        cleaned = _once(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def _once(text: str) -> str:
    before, *urls = "".join(map(_without_odd_password, _BLANK.split(text))).split("://")
    text = "://".join([before, *map(_public, urls)])
    text = _BEARER.sub(r"\g<kind> [redacted]", text)
    text = _JWT.sub("[redacted]", text)
    return "".join(_without_assigned(text))


def _without_assigned(text: str) -> Iterator[str]:
    done = 0
    for named in _NAMED.finditer(text):
        if named.start() < done or not _TELLING.search(named["name"]):
            continue
        if value := _VALUES[named["quote"]].match(text, named.end()):
            yield text[done : named.end()] + "[redacted]"
            done = value.end()
    yield text[done:]


def _without_odd_password(word: str) -> str:
    """The word without a password that has a `://` in itself, which should have been encoded."""
    scheme, separator, url = word.partition("://")
    if separator and "@" in url and _breaks_off(url[: _end(_AUTHORITY, url)]):
        return scheme + separator + url[url.rindex("@") + 1 :]
    return word


def _breaks_off(authority: str) -> bool:
    """Whether what seems to be a port is the beginning of a password."""
    return "@" not in authority and ":" in authority and not _PORT.fullmatch(authority)


def _public(text: str) -> str:
    """Text that starts behind the `://` of a URL, its userinfo and query taken out."""
    end = _end(_WORD, text)
    url, rest = text[:end], text[end:]
    authority = url[: _end(_AUTHORITY, url)]
    if "@" in authority:
        url = url[authority.rindex("@") + 1 :]
    elif "@" in url and _breaks_off(authority):
        # A password with a character that should have been encoded.
        url = url[url.rindex("@") + 1 :]
    return _QUERY.sub("", url) + rest


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0
