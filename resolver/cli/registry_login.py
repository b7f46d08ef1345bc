"""Who one is to a registry: the file that `docker login` and `podman login` write, and the registry's challenge.

What is read here goes into the Authorization header of a request and nowhere else.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resolver.client.errors import BadUsage

# RFC 9110, 11.4: `name="value"`, as registries write it.
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)="((?:[^"\\]|\\.)*)"')
_TABLES = ("auths", "credHelpers")
_SCHEME = re.compile(r"\s*([A-Za-z]+)\s+")


@dataclass(frozen=True, slots=True)
class Login:
    """User and password, or (`identity`) a token that stands for both. `repr` shows neither."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    def basic(self) -> str:
        """As an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for: `basic`, or `bearer` with the realm, service and scope of a token."""

    scheme: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """A WWW-Authenticate header; one that is none of the two asks for a scheme that nobody has."""
        match = _SCHEME.match(header)
        return cls(match[1].lower() if match else "", dict(_PARAMETER.findall(header)))


def find_login(host: str, repository: str) -> Login | None:
    """The login for a repository, or else for the registry (containers-auth.json(5)); None where there is none.

    Raises:
        BadUsage: a file of logins is none, or has this one in a program (`credHelpers`) where nobody reads it.
    """
    places = [f"{host}/{repository}"[: len(host) + 1 + end] for end in _ends(repository)] + [host]
    for path in _files():
        document = _read(path)
        logins = {_bare(name): entry for name, entry in document.get("auths", {}).items()}
        for place in places:
            if login := _login(logins.get(place), path):
                return login
        if host in document.get("credHelpers", {}) or (host in logins and "credsStore" in document):
            raise BadUsage(
                f"{path} keeps the login for {host} in a helper program",
                ("log in to a file of its own, and name it with REGISTRY_AUTH_FILE",),
            )
    return None


def _ends(repository: str) -> list[int]:
    """Where the repository, the folder that it is in, and so on, end: the longest first."""
    return [len(repository), *(match.start() for match in reversed([*re.finditer("/", repository)]))]


def _files() -> list[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = [Path(runtime) / "containers" / "auth.json"] if runtime else []
    return [path for path in (*found, docker) if path.exists()]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        if isinstance(document, dict) and all(isinstance(document.get(name, {}), dict) for name in _TABLES):
            return document
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        pass
    # Not what is wrong with it: that would show a part of it.
    raise BadUsage(f"{path} is no file of logins")


def _bare(name: str) -> str:
    """Docker has names such as `https://registry.example.com/v1/`."""
    return re.sub(r"^https?://|/v[12]/?$|/$", "", name)


def _login(entry: Any, path: Path) -> Login | None:
    if not isinstance(entry, dict):
        return None
    try:
        user, _, password = base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
    except ValueError:
        raise BadUsage(f"{path} is no file of logins") from None
    if token := entry.get("identitytoken"):
        return Login(user, identity=str(token))
    return Login(user, password) if user else None
