"""An OCI registry as one pushes to it (distribution-spec, "Push"). What may pass is a Passing: see client/retries.py.

The libraries that there are for it push files, and hold them in memory; this pushes what comes from the service while
it comes.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx

from resolver.cli.registry_login import Challenge, Login
from resolver.client.errors import BadUsage, NotAllowed, Refused, Unavailable
from resolver.client.retries import Passing, Patience
from resolver.domain.redaction import redact
from storage.content import INDEX, MANIFEST, Digest

_CONNECT = 10.0  # seconds
_IDLE = 60.0
_LARGEST_ANSWER = 4 << 20
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# distribution-spec, "Pulling manifests", with the host in front; no scheme, so that it is said in one place.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")


_ACCEPT = {"Accept": f"{INDEX}, {MANIFEST}"}
_HINTS = ("REGISTRY_AUTH_FILE, or what `docker login` wrote, says who one is",)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer, whole."""

    status: int
    headers: httpx.Headers
    content: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a registry."""

    host: str
    repository: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """`registry.example.com/team/name`. Raises BadUsage."""
        host, _, repository = text.partition("/")
        if not (_HOST.fullmatch(host) and _NAME.fullmatch(repository) and ("." in host or ":" in host)):
            raise BadUsage(f"{text!r} is not REGISTRY/NAME, such as registry.example.com/team/checkout")
        return cls(host, repository)


class Registry:
    """One repository. `mount_from` are others of the same registry that may have a blob already."""

    def __init__(
        self,
        http: httpx.Client,
        place: Place,
        login: Login | None,
        patience: Patience,
        *,
        plain_http: bool,
        mount_from: tuple[str, ...] = (),
    ) -> None:
        self._http = http
        self._place = place
        self._login = login
        self._patience = patience
        self._scheme = "http" if plain_http else "https"
        self._base = httpx.URL(f"{self._scheme}://{place.host}/v2/{place.repository}/")
        self._mount_from = mount_from
        self._authorization: str | None = None
        self._asking_for_token = threading.Lock()

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there (end-2). Raises FetchError, Passing."""
        return self._head(f"blobs/{digest}")

    def has_manifest(self, digest: Digest) -> bool:
        """Whether the manifest is there (end-3). Raises FetchError, Passing."""
        return self._head(f"manifests/{digest}")

    def begin(self, digest: Digest) -> str | None:
        """Mount the blob from another repository (end-11): None; where that cannot be, the place to upload it to
        (end-4a).

        Raises:
            FetchError, Passing.
        """
        location = ""
        for source in self._mount_from or ("",):
            query = {"mount": str(digest), "from": source} if source else {}
            answer = self._ask("POST", "blobs/uploads/", (201, 202), params=query)
            if answer.status == 201:
                return None
            location = answer.headers.get("Location", "")
        # It may be elsewhere, and has a query that is to stay as it is.
        return urljoin(str(self._base.join("blobs/uploads/")), location)

    def upload(self, location: str, digest: Digest, size: int, chunks: Iterator[bytes]) -> None:
        """Upload to a place that `begin` gave (end-6). Raises FetchError, Passing, and what `chunks` raises."""
        url = self._url(location).copy_merge_params({"digest": str(digest)})
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._expect(self._once("PUT", url, headers=headers, content=chunks), (201,), "PUT blobs/uploads/…")

    def put(self, reference: str, media_type: str, content: bytes) -> bool:
        """Put a manifest by its digest or by a tag (end-7). Returns whether the registry lists it with its subject.

        Raises:
            FetchError, Passing.
        """
        headers = {"Content-Type": media_type}
        answer = self._ask("PUT", f"manifests/{reference}", (201,), headers=headers, content=content)
        return "OCI-Subject" in answer.headers

    def add_referrer(self, subject: Digest, referrer: Mapping[str, Any]) -> None:
        """Enter a referrer in the list of a registry that keeps none (distribution-spec, "Referrers Tag Schema").

        Raises:
            FetchError, Passing.
        """
        tag = subject.replace(":", "-")
        answer = self._ask("GET", f"manifests/{tag}", (200, 404), headers=_ACCEPT)
        try:
            known = json.loads(answer.content)["manifests"] if answer.status == 200 else []
            if any(entry["digest"] == referrer["digest"] for entry in known):
                return
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"what {self._place.host} has as the tag {tag} is no list of referrers") from error
        listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*known, referrer]}
        self.put(tag, INDEX, json.dumps(listed, sort_keys=True, separators=(",", ":")).encode())

    def _head(self, path: str) -> bool:
        return self._ask("HEAD", path, (200, 404), headers=_ACCEPT, follow_redirects=True).status == 200

    def _ask(self, method: str, path: str, expected: tuple[int, ...], **options: Any) -> _Answer:
        """The answer, one of these statuses; asked once more where the registry wants to know who asks."""
        url, shown = self._base.join(path), self._authorization
        answer = self._once(method, url, **options)
        if answer.status == 401:
            with self._asking_for_token:
                if self._authorization == shown:  # else another thread has a newer one
                    self._authorization = self._authorize(answer.headers.get("WWW-Authenticate", ""))
            answer = self._once(method, url, **options)
        return self._expect(answer, expected, f"{method} {path}")

    def _once(self, method: str, url: httpx.URL, **options: Any) -> _Answer:
        left = self._patience.left()
        follow = options.pop("follow_redirects", False)
        headers = dict(options.pop("headers", {}))
        # An upload may go to another host, which is not to learn who we are.
        if self._authorization and _origin(url) == _origin(self._base):
            headers.setdefault("Authorization", self._authorization)
        timeout = httpx.Timeout(min(_IDLE, left), connect=min(_CONNECT, left))
        try:
            request = self._http.build_request(method, url, headers=headers, timeout=timeout, **options)
            answer = self._http.send(request, stream=True, follow_redirects=follow)
            with closing(answer):
                content = bytearray()
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _LARGEST_ANSWER:
                        raise Unavailable(f"{self._place.host} answers without end")
                return _Answer(answer.status_code, answer.headers, bytes(content))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.DecodingError) as error:
            raise Unavailable(f"{self._place.host} answers what is no HTTP: {type(error).__name__}") from error
        except (httpx.TransportError, httpx.TooManyRedirects) as error:
            reason = "timed out" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
            raise Passing(Unavailable(f"no answer from {self._place.host}: {redact(reason)}")) from error

    def _url(self, text: str) -> httpx.URL:
        """An address that the registry names."""
        try:
            return httpx.URL(text)
        except httpx.InvalidURL as error:
            raise Unavailable(f"{self._place.host} names an address that is none") from error

    def _expect(self, answer: _Answer, expected: tuple[int, ...], asked: str) -> _Answer:
        if answer.status in expected:
            return answer
        told = f"{self._place.host} answers {answer.status} to {asked}{_message(answer.content)}"
        if answer.status in _PASSING:
            after = answer.headers.get("Retry-After", "")
            raise Passing(Unavailable(told), float(after) if after.isdecimal() else 0.0)
        if answer.status in (401, 403):
            raise NotAllowed(told, () if self._login else _HINTS)
        raise Refused(told) if 400 <= answer.status < 500 else Unavailable(told)

    def _authorize(self, header: str) -> str:
        """What to answer a challenge with. Raises FetchError, Passing."""
        challenge = Challenge.parse(header)
        if challenge.scheme == "basic" and self._login:
            return self._login.basic()
        if challenge.scheme != "bearer":
            raise NotAllowed(f"{self._place.host} wants a login, and there is none for it", _HINTS)
        return f"Bearer {self._token(challenge.parameters)}"

    def _token(self, parameters: Mapping[str, str]) -> str:
        """A token (distribution's token authentication); `realm` says where it is to be had."""
        realm = self._url(parameters.get("realm", ""))
        if realm.scheme != "https" and (realm.scheme, self._scheme) != ("http", "http"):
            raise Unavailable(f"{self._place.host} gives tokens at an address that is not to be trusted with a login")
        scope = f"repository:{self._place.repository}:pull,push"
        asked = {"service": parameters.get("service", ""), "scope": parameters.get("scope") or scope}
        if self._login and self._login.identity:
            grant = {"grant_type": "refresh_token", "refresh_token": self._login.identity, "client_id": "lockstep"}
            answer = self._once("POST", realm, data={**asked, **grant})
        else:
            login = {"Authorization": self._login.basic()} if self._login else {}
            answer = self._once("GET", realm.copy_merge_params(asked), headers=login)
        self._expect(answer, (200,), "the question for a token")
        try:
            body = json.loads(answer.content)
            return str(body.get("token") or body["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise Unavailable(f"{realm.host} gave no token") from error


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _message(content: bytes) -> str:
    """What the registry says of it (distribution-spec, "Error Codes"), shortened and without credentials."""
    try:
        first = json.loads(content)["errors"][0]
        return redact(f": {first['code']}: {first.get('message', '')}")[:300]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
