"""Tokens from a file, for people and jobs: each has a name, a role, and the namespaces that it is for.

    tokens:
      - {name: ada, role: operator, sha256: 9f86d0…}          # of the token: `printf %s "$TOKEN" | sha256sum`
      - {name: ci, role: reader, namespaces: [shop], token: …}  # or the token itself

A `reader` may do what a Pod may: resolve, pin, fetch and look. An `operator` may also refresh, hold and warm.
"""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, model_validator

from resolver.domain.identity import Caller

_LEAST = 16  # characters
_LOOK_EVERY = 2.0

log = structlog.get_logger(__name__)

_Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")]
    role: Literal["operator", "reader"]
    namespaces: Annotated[list[_Namespace], Field(min_length=1)] | None = None
    token: SecretStr | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if (self.token is None) == (self.sha256 is None):
            raise ValueError("it has a token or its sha256, one of them")
        if self.token is not None:
            text = self.token.get_secret_value()
            if len(text) < _LEAST or " " in text or not (text.isascii() and text.isprintable()):
                raise ValueError(f"a token has {_LEAST} characters or more, of ASCII without blanks")
        return self

    @property
    def digest(self) -> bytes:
        if self.token is None:
            return bytes.fromhex(self.sha256 or "")
        return hashlib.sha256(self.token.get_secret_value().encode()).digest()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tokens: list[_Entry]


@dataclass(frozen=True, slots=True)
class Known:
    """A token, by its SHA-256, and whose it is."""

    digest: bytes
    caller: Caller


class StaticTokens:
    """The tokens of a file, which is read again when it changes: what a kubelet swaps is a link two folders up."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that cannot be read, or holds no tokens; it shows nothing that is in it."""
        self._path = path
        self._seen = _state(path)
        self._known = read_tokens(path)

    def find(self, digest: bytes) -> Caller | None:
        """Whose token has this SHA-256. Takes the same time whichever it is, and where it is none."""
        found = None
        for known in self._known:
            if hmac.compare_digest(known.digest, digest):
                found = known.caller
        return found

    async def keep_current(self) -> None:
        """Look again and again. Where the new file is none that can be used, the tokens of the old one stay."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = _state(self._path)
            if now == self._seen or now is None:
                continue
            self._seen = now
            try:
                self._known = await asyncio.to_thread(read_tokens, self._path)
            except ValueError as failure:
                log.error("tokens.unusable", cause=str(failure))  # noqa: TRY400 - no fault in here
            else:
                log.info("tokens.renewed", names=[known.caller.name for known in self._known])


def read_tokens(path: Path) -> Sequence[Known]:
    """The tokens of the file. Raises ValueError, which shows nothing that is in it."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as failure:
        raise ValueError(f"{path} (auth_tokens) cannot be read: {failure.strerror}") from failure
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark
        raise ValueError(f"{path} (auth_tokens) is not YAML" + (f", line {mark.line + 1}" if mark else "")) from None
    except (yaml.YAMLError, ValueError):
        raise ValueError(f"{path} (auth_tokens) is not YAML") from None
    try:
        entries = _File.model_validate(content).tokens
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ") + (f" ({where})" if where else "")
        raise ValueError(f"{path} (auth_tokens): {told}") from None
    known = [Known(each.digest, _caller(each)) for each in entries]
    if len({each.digest for each in known}) < len(known) or len({each.name for each in entries}) < len(entries):
        raise ValueError(f"{path} (auth_tokens): two tokens have the same name, or are the same")
    return known


def _caller(entry: _Entry) -> Caller:
    namespaces = None if entry.namespaces is None else frozenset(entry.namespaces)
    return Caller(entry.name, entry.role == "operator", namespaces)


def _state(path: Path) -> tuple[int, int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None
