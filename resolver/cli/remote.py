"""The service as a command reaches it. Nothing is tried twice: a person sees what failed, and decides."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from resolver.client.errors import BadUsage, FetchError, Unavailable
from resolver.client.problems import problem
from resolver.client.retries import Passing, Patience
from resolver.client.transport import Server

DEFAULT_SERVER = "http://127.0.0.1:8080"
_CONNECT = 5.0  # seconds
_IDLE = 30.0
_LARGEST_ANSWER = 64 << 20
_PAGE = 500  # the most that the service gives at once
_SEARCHED = 10_000
_DIGEST = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{1,64})")
_CANDIDATES = 5
_POLL = 1.0
_LEAST_POLL = 0.1
_OPERATION = re.compile(r"/v1/operations/[\w-]{1,128}")


class NotFound(FetchError):
    """There is no such lock, package or operation (EX_NOINPUT)."""

    exit_code = 66


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer, whole."""

    asked: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> dict[str, Any]:
        """The content as an object. Raises Unavailable where it is none."""
        body = _parsed(self.content)
        if body is None:
            raise Unavailable(f"{self.asked} was answered with something that is no JSON object")
        return body


def add_arguments(parser: argparse.ArgumentParser, timeout: float = 60) -> None:
    """The flags that every command has which asks the service."""
    group = parser.add_argument_group("the service")
    add = group.add_argument
    add(
        "--server",
        metavar="URL",
        default=os.environ.get("LOCKSTEP_SERVER") or DEFAULT_SERVER,
        help=f"where it is (LOCKSTEP_SERVER; default: {DEFAULT_SERVER})",
    )
    add(
        "--token-file",
        metavar="F",
        default=os.environ.get("LOCKSTEP_TOKEN_FILE") or None,
        help="a file with the token to show it (LOCKSTEP_TOKEN_FILE)",
    )
    add(
        "--ca-file",
        metavar="F",
        default=os.environ.get("LOCKSTEP_CA_FILE") or None,
        help="certificates to trust (LOCKSTEP_CA_FILE; default: the system's)",
    )
    add("--timeout", metavar="S", type=_seconds, default=timeout, help=f"seconds for all of it (default: {timeout:g})")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError("not a number of seconds")
    return seconds


class Remote:
    """HTTP to the service; `patience` bounds all of a command."""

    def __init__(self, server: Server, http: httpx.Client, patience: Patience) -> None:
        self._server = server
        self._http = http
        self.patience = patience

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        idle: float = _IDLE,
    ) -> Reply:
        """Ask, and return the answer. Nothing for `idle` seconds is a failure.

        Raises:
            FetchError: by what the answer means: NotFound, or as `fetch` has it.
        """
        asked = f"{method} {path}"
        left = self.patience.left()
        timeout = httpx.Timeout(min(idle, left), connect=min(_CONNECT, left))
        try:
            with self._http.stream(method, path, json=body, params=query, timeout=timeout) as response:
                content = self._whole(response, asked)
        except httpx.RequestError as error:
            self.patience.left()
            reason = "timed out" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
            hint = "--server or LOCKSTEP_SERVER says where the service is"
            raise Unavailable(f"{asked}: no answer from {self._server.base}: {reason}", (hint,)) from error
        if response.status_code not in (200, 202):
            raise _error(response.status_code, content, asked)
        return Reply(asked, response.status_code, response.headers, content)

    @contextmanager
    def open(self, path: str) -> Iterator[httpx.Response]:
        """The answer to a GET while it comes, for who tries again.

        Raises:
            FetchError: as `send`.
            Passing: it may pass.
        """
        asked = f"GET {path}"
        left = self.patience.left()
        timeout = httpx.Timeout(min(_IDLE, left), connect=min(_CONNECT, left))
        try:
            with self._http.stream("GET", path, timeout=timeout, follow_redirects=True) as response:
                if response.status_code != 200:
                    pause = response.headers.get("Retry-After", "")
                    found = problem(
                        _parsed(self._whole(response, asked)) or {},
                        response.status_code,
                        asked,
                        float(pause) if pause.isdecimal() else 0.0,
                    )
                    raise NotFound(str(found)) if response.status_code == 404 else found
                yield response
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
            raise Passing(Unavailable(f"{asked}: no answer from {self._server.base}: {reason}")) from error

    def get(self, path: str, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """The JSON at a path. Raises as `send`."""
        return self.send("GET", path, query=query).json()

    def follow(self, reply: Reply, seen: Callable[[dict[str, Any]], None] = lambda state: None) -> Reply:
        """The reply, or where that says that the service is still at work, how the work ends; `seen` is shown each
        state on the way. Raises as `send`."""
        while reply.status == 202:
            seen(reply.json())
            # Asked for where the service is, whatever name the service gives itself.
            operation = _OPERATION.search(reply.headers.get("Location", ""))
            if operation is None:
                raise Unavailable("the service names no operation to wait for")
            pause = reply.headers.get("Retry-After", "")
            self.patience.pause(max(_LEAST_POLL, float(pause)) if pause.isdecimal() else _POLL)
            reply = self.send("GET", operation[0])
        return reply

    def items(self, path: str, filters: Mapping[str, str | None], limit: int) -> dict[str, Any]:
        """The first `limit` items of a list, page by page, and the cursor of what follows (None: nothing does)."""
        query: dict[str, str | int] = {name: value for name, value in filters.items() if value is not None}
        found: list[Any] = []
        while True:
            page = self.get(path, {**query, "limit": min(_PAGE, limit - len(found))})
            with as_agreed():
                items, cursor = page["items"], page["cursor"]
                found += items[: limit - len(found)]
            if cursor is None or len(found) == limit or not items:
                return {"items": found, "cursor": cursor}
            query["cursor"] = str(cursor)

    def digest(self, name: str) -> str:
        """The digest of the lock that a person named: by a digest, or by the beginning of its hexadecimal part.

        Raises:
            BadUsage: it is neither, or begins the digests of several locks.
            NotFound: it begins none of the newest 10,000.
        """
        match = _DIGEST.fullmatch(name.lower())
        if match is None:
            raise BadUsage("a lock is named by its digest, or by the beginning of its hexadecimal part")
        prefix = f"sha256:{match['hex']}"
        if len(match["hex"]) == 64:
            return prefix
        with as_agreed():
            known = {str(item["digest"]) for item in self.items("/v1/locks", {}, _SEARCHED)["items"]}
        found = sorted(digest for digest in known if digest.startswith(prefix))
        if not found:
            raise NotFound(f"no lock begins with {prefix}")
        if len(found) > 1:
            raise BadUsage(f"{len(found)} locks begin with {prefix}", tuple(found[:_CANDIDATES]))
        return found[0]

    def _whole(self, response: httpx.Response, asked: str) -> bytes:
        content = bytearray()
        for chunk in response.iter_bytes():
            self.patience.left()
            content += chunk
            if len(content) > _LARGEST_ANSWER:
                raise Unavailable(f"{asked}: the answer has more than {_LARGEST_ANSWER} bytes")
        return bytes(content)


@contextmanager
def connect(options: argparse.Namespace) -> Iterator[Remote]:
    """The service that the flags name, while the context is open.

    Raises:
        BadUsage: the URL or the certificates are none.
    """
    server = Server(options.server, options.token_file, options.ca_file)

    def authorize(request: httpx.Request) -> httpx.Request:
        request.headers.update(server.authorization())
        return request

    with httpx.Client(
        base_url=server.base,
        auth=authorize,
        verify=ssl.create_default_context(cafile=options.ca_file),
        trust_env=False,  # as `fetch`: the service is in the cluster, a proxy is for what is outside of it
    ) as http:
        yield Remote(server, http, Patience(options.timeout))


@contextmanager
def as_agreed() -> Iterator[None]:
    """Around whatever reads an answer: one of another shape is no fault of this program's."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"the service answered, but not as the contract has it: {error!r}") from error


def segment(text: str) -> str:
    """The text as one segment of a path (RFC 3986, 3.3), whatever is in it.

    Raises:
        BadUsage: it is empty, or one of the two that mean another place.
    """
    if text in ("", ".", ".."):
        raise BadUsage(f"{text!r} names nothing")
    return quote(text, safe="")


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _error(status: int, content: bytes, asked: str) -> FetchError:
    found = problem(_parsed(content) or {}, status, asked)
    if isinstance(found, Passing):
        return type(found.final)(str(found.final), (*found.final.hints, "this may pass: try again"))
    return NotFound(str(found), found.hints) if status == 404 else found
