"""requirements.txt text, read as pip reads it, less all that reaches outside of the request.

What is left is a list of PEP 508 requirements by name, each with the hashes that its files may have. Everything
else (options, other files, paths, URLs, version control, environment variables) is refused, naming the line, the
reason and the way out: a request must mean the same to whoever reads it, now and later.
"""

import re
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from resolver.domain.errors import InvalidRequest
from resolver.domain.redaction import redact
from resolver.domain.requests import RequirementLine
from resolver.domain.targets import TargetEnvironment

MAX_BYTES = 1 << 20
MAX_LINES = 5_000
MAX_LINE_CHARACTERS = 1 << 16  # with its continuations: some projects have hundreds of hashes
MAX_REQUIREMENT_CHARACTERS = 1 << 12
MAX_PARENTHESES = 100  # packaging's parser of markers recurses

_ANY_CLASS = TargetEnvironment.from_platform("3.12", "manylinux_2_17_x86_64")
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
_COMMENT_LINE = re.compile(r"\s*#")
_OPTIONS = re.compile(r"(?<=\s)-")
_UNREADABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAMED = re.compile(r"[\w.\-]+\s*(?:\[[^\]]*\])?\s*@\s*")
_VCS = re.compile(r"(?:git|hg|svn|bzr)(?:\+|:)", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.\-]*://", re.IGNORECASE)
_PATH_END = re.compile(r"[\s;\[]")
_ARCHIVES = (".whl", ".zip", ".egg", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.lzma")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_BY_NAME = "publish the package to an index that the operator configured, and require it by its name"
_INDEXES = "which indexes there are is the operator's choice: name some of those in `indexes`, and remove this line"
_RELEASES = "whether pre-releases may be chosen is said by `prereleases` of the request: remove this line"
_WHEELS_ONLY = "what is built from source is the operator's setting: remove this line"
_NO_BUILD = "a build takes no configuration from a request, as all share what is built: remove the option"
_OPTION_REASONS = {
    "--editable": f"an editable install needs a source tree, which nobody else can see: {_BY_NAME}",
    "--requirement": "another file cannot be read from here: put its lines in the place of this one",
    "--constraint": "another file cannot be read from here: give its lines as `constraints` of the request",
    "--index-url": _INDEXES,
    "--extra-index-url": _INDEXES,
    "--pypi-url": _INDEXES,
    "--no-index": _INDEXES,
    "--find-links": f"files beside an index cannot be used: {_BY_NAME}",
    "--trusted-host": "how an index is trusted is the operator's setting: remove this line",
    "--pre": _RELEASES,
    "--all-releases": _RELEASES,
    "--only-final": _RELEASES,
    "--no-binary": _WHEELS_ONLY,
    "--only-binary": _WHEELS_ONLY,
    "--prefer-binary": _WHEELS_ONLY,
    "--require-hashes": "a lock has the hash of every file, and each is verified: remove this line",
    "--no-require-hashes": "a lock has the hash of every file, and each is verified: remove this line",
    "--use-feature": "a feature of pip has no meaning here: remove this line",
    "--config-settings": _NO_BUILD,
    "--global-option": _NO_BUILD,
    "--install-option": _NO_BUILD,
    "--build-option": _NO_BUILD,
    "--hash": "a hash stands on the line of its requirement, behind it",
}
_SHORT_OPTIONS = {
    "-e": "--editable",
    "-r": "--requirement",
    "-c": "--constraint",
    "-i": "--index-url",
    "-f": "--find-links",
    "-C": "--config-settings",
}


class _Refused(ValueError):
    """Why a line is not taken."""


def parse_requirements(source: str | Sequence[str], field: str = "requirements") -> tuple[RequirementLine, ...]:
    """The requirements in requirements.txt text, or in a list with one of them an entry. None at all is fine.

    Lines count from 1 (for a list: entries); that of a continued line is its first.

    Raises:
        InvalidRequest: naming line and reason, its `text` redacted.
    """
    lines: list[RequirementLine] = []
    for number, line in _logical_lines(source, field):
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        if len(lines) == MAX_LINES:
            raise InvalidRequest(f"over {MAX_LINES} requirements", field=field, line=number)
        try:
            lines.append(_parse_line(text, number))
        except _Refused as refusal:
            raise _invalid(str(refusal), field, number, text) from None
    return tuple(lines)


def parse_constraints(source: str | Sequence[str], field: str = "constraints") -> tuple[RequirementLine, ...]:
    """The same for constraints, which ask for nothing and only bound versions; so they have no extras.

    Raises:
        InvalidRequest: naming line and reason, its `text` redacted.
    """
    lines = parse_requirements(source, field)
    for line in lines:
        if line.requirement.extras:
            reason = "a constraint takes no extras: ask for them in a requirement"
            raise _invalid(reason, field, line.line, str(line.requirement))
    return lines


def parse_requirement(text: str) -> Requirement:
    """`packaging`'s Requirement out of a stranger's text (PEP 508).

    Raises:
        ValueError: it is none, its marker cannot be evaluated, or it is beyond all measure.
    """
    if len(text) > MAX_REQUIREMENT_CHARACTERS:
        raise _Refused(f"a requirement of over {MAX_REQUIREMENT_CHARACTERS} characters")
    if "\\" in text:
        raise _Refused("a backslash: it continues a line as the very last character of it, and means nothing elsewhere")
    if text.count("(") > MAX_PARENTHESES:
        raise _Refused(f"over {MAX_PARENTHESES} parentheses")
    try:
        requirement = Requirement(text)
        _ANY_CLASS.holds(requirement.marker)  # what one class cannot evaluate, none can
    except ValueError as error:
        # packaging shows the whole line below its reason; the caller has that, redacted.
        raise _Refused(redact(str(error).partition("\n")[0])) from None
    return requirement


def _logical_lines(source: str | Sequence[str], field: str) -> Iterator[tuple[int, str]]:
    if isinstance(source, str):
        physical: Sequence[str] = re.split("\r\n|\r|\n", source.removeprefix("\ufeff"))
    else:
        physical = [entry.strip() for entry in source]
    if sum(len(line.encode(errors="surrogatepass")) + 1 for line in physical) > MAX_BYTES:
        raise InvalidRequest(f"over {MAX_BYTES} bytes", field=field)
    for number, line in enumerate(physical, 1):
        if unreadable := _UNREADABLE.search(line):
            raise _invalid(f"it has the control character U+{ord(unreadable[0]):04X}", field, number, line)
    for number, line in _joined(physical, field) if isinstance(source, str) else enumerate(physical, 1):
        if len(line) > MAX_LINE_CHARACTERS:
            raise _invalid(f"over {MAX_LINE_CHARACTERS} characters", field, number, line)
        yield number, line


def _joined(physical: Sequence[str], field: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations. As for pip, a comment line continues nothing, and ends what it stands in."""
    first, parts = 1, list[str]()
    for number, line in enumerate(physical, 1):
        if not parts:
            first = number
        is_comment = _COMMENT_LINE.match(line) is not None
        if line.endswith("\\") and not is_comment:
            if _COMMENT.search(line):
                # pip takes the next line for a part of the comment, uv does not.
                raise _invalid("a comment that ends in a backslash: remove the backslash", field, number, line)
            parts.append(line[:-1])
            continue
        yield first, "".join(parts) + (" " if is_comment else "") + line
        parts = []
    if parts:
        yield first, "".join(parts)


def _parse_line(text: str, number: int) -> RequirementLine:
    if text.startswith("-"):
        raise _Refused(_option_reason(text.split()[0]))
    if "${" in text:
        raise _Refused("environment variables are not expanded: write the value itself")
    options = _OPTIONS.search(text)
    bare = text[: options.start()].strip() if options else text
    if len(bare) > MAX_REQUIREMENT_CHARACTERS:
        raise _Refused(f"a requirement of over {MAX_REQUIREMENT_CHARACTERS} characters")
    if reason := _outside_reason(bare):
        raise _Refused(reason)
    hashes = frozenset(_hashes(text[options.start() :])) if options else frozenset[str]()
    try:
        requirement = parse_requirement(bare)
    except ValueError as error:
        raise _Refused(str(error)) from None
    for specifier in requirement.specifier:
        if specifier.operator == "===" and not _is_version(specifier.version):
            raise _Refused("`===` with what PEP 440 does not know as a version: no lock can name it")
    return RequirementLine(requirement, hashes, number)


def _outside_reason(text: str) -> str | None:
    named = _NAMED.match(text)
    place = text[named.end() :] if named else text
    if _VCS.match(place):
        return f"a version control URL names what may change or go away: {_BY_NAME}"
    path = _PATH_END.split(place, maxsplit=1)[0].lower()
    is_url = _URL.match(place) is not None
    if path.startswith("file:") or (
        not is_url and (path.startswith((".", "~")) or "/" in path or "\\" in path[:-1] or path.endswith(_ARCHIVES))
    ):
        return f"a local path means nothing on another machine: {_BY_NAME}"
    if is_url or named:
        return f"a file at a URL is on no index, and may change or go away: {_BY_NAME}"
    return None


def _option_reason(option: str) -> str:
    name = option.partition("=")[0]
    if not name.startswith("--"):
        name = _SHORT_OPTIONS.get(name[:2], name)
    # pip takes any beginning of an option's name for the option.
    known = next((known for known in _OPTION_REASONS if known.startswith(name) and len(name) > len("--")), None)
    return _OPTION_REASONS[known] if known else "an option that has no meaning here: remove it"


def _hashes(options: str) -> Iterator[str]:
    words = iter(options.split())
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--hash":
            raise _Refused(_option_reason(word) if word.startswith("-") else "a requirement ends before its options")
        algorithm, _, digest = (value if equals else next(words, "")).lower().partition(":")
        if algorithm != "sha256":
            raise _Refused(f"a hash by {algorithm[:16] or 'no algorithm'!r}: a lock verifies sha256, give that one")
        if not _SHA256.fullmatch(digest):
            raise _Refused("a sha256 hash has 64 hexadecimal digits")
        yield f"sha256:{digest}"


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _invalid(reason: str, field: str, number: int, text: str) -> InvalidRequest:
    shown = redact(text)
    return InvalidRequest(reason, field=field, line=number, text=shown if len(shown) <= 200 else shown[:200] + "…")
