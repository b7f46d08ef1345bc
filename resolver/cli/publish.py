"""`publish`: push the images of a lock or a workload to a registry that nodes pull from.

The service is the source, through its own `/v2/`; bytes go from there to the registry while they come, and are kept
nowhere. Blobs first, then what names them, tags last: whoever pulls meanwhile sees the old image, or the new one whole.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import httpx

from resolver.cli import remote
from resolver.cli.command import Command
from resolver.cli.output import plain
from resolver.cli.registry import Place, Registry
from resolver.cli.registry_login import find_login
from resolver.client.console import Console, Progress, size
from resolver.client.errors import Mismatch, Unavailable
from resolver.client.retries import Passing, Patience, persist
from storage.content import Digest

_PARALLEL = 4
_LARGEST_DOCUMENT = 4 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Document:
    """A manifest or index. `entry` is how a list of referrers shows it."""

    digest: Digest
    media_type: str
    content: bytes
    entry: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = json.loads(self.content)
        return found


@dataclass(slots=True)
class _Plan:
    """All that is to be pushed, in the order of the fields."""

    blobs: dict[Digest, int] = field(default_factory=dict)
    images: dict[Digest, _Document] = field(default_factory=dict)
    indexes: dict[str, _Document] = field(default_factory=dict)  # by tag
    referrers: list[tuple[Digest, _Document]] = field(default_factory=list)  # with their subjects


class _Source:
    """A repository of the service."""

    def __init__(self, service: remote.Remote, repository: str, console: Console) -> None:
        self._service = service
        self._path = f"/v2/{repository}"
        self._console = console

    def plan(self) -> _Plan:
        """What is in it: images of every tag, and the locks that refer to them."""
        plan = _Plan()
        with remote.as_agreed():
            for tag in [str(tag) for tag in json.loads(self._get("tags/list")[1])["tags"]]:
                index = plan.indexes[tag] = self._document(tag)
                for entry in index.fields["manifests"]:
                    image = self._document(Digest(entry["digest"]))
                    plan.images[image.digest] = image
                    _add_blobs(plan, image)
                    self._add_referrers(plan, image.digest)
                self._add_referrers(plan, index.digest)
        return plan

    def blob(self, digest: Digest) -> Iterator[bytes]:
        """The blob's bytes. Raises Passing at their end where they are others than the digest names."""
        hasher = hashlib.sha256()
        with self._service.open(f"{self._path}/blobs/{digest}") as answer:
            for chunk in answer.iter_raw(_CHUNK):
                hasher.update(chunk)
                yield chunk
        if hasher.hexdigest() != digest.hex:
            raise Passing(Mismatch(f"what arrived as {digest} is sha256:{hasher.hexdigest()}"))

    def _add_referrers(self, plan: _Plan, subject: Digest) -> None:
        for entry in json.loads(self._get(f"referrers/{subject}")[1])["manifests"]:
            referrer = self._document(Digest(entry["digest"]), entry)
            _add_blobs(plan, referrer)
            plan.referrers.append((subject, referrer))

    def _document(self, reference: str, entry: dict[str, Any] | None = None) -> _Document:
        media_type, content = self._get(f"manifests/{reference}")
        digest = Digest.of(content)
        if ":" in reference and reference != digest:
            raise Mismatch(f"what arrived as {reference} is {digest}")
        return _Document(digest, media_type, content, entry or {})

    def _get(self, path: str) -> tuple[str, bytes]:
        def attempt() -> tuple[str, bytes]:
            with self._service.open(f"{self._path}/{path}") as answer:
                content = bytearray()
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _LARGEST_DOCUMENT:
                        raise Unavailable(f"{path} has more than {_LARGEST_DOCUMENT} bytes")
                return answer.headers.get("Content-Type", "").partition(";")[0], bytes(content)

        return persist(attempt, self._service.patience, self._console.say)


class _Pushing:
    """Pushes a plan; whatever passes is tried again until the time is up."""

    def __init__(self, source: _Source, registry: Registry, patience: Patience, console: Console) -> None:
        self._source = source
        self._registry = registry
        self._patience = patience
        self._console = console

    def push(self, plan: _Plan) -> None:
        progress = Progress(self._console, sum(plan.blobs.values()))
        with ThreadPoolExecutor(_PARALLEL) as threads:
            # The longest first: none is left for the end.
            largest_first = sorted(plan.blobs.items(), key=lambda blob: -blob[1])
            pushing = [threads.submit(self._blob, digest, amount, progress) for digest, amount in largest_first]
            try:
                for done in as_completed(pushing):
                    done.result()
            except BaseException:
                self._patience.abandon()
                threads.shutdown(cancel_futures=True)
                raise
        for document in (*plan.images.values(), *plan.indexes.values()):
            self._put_once(document)
        for subject, referrer in plan.referrers:
            self._refer(subject, referrer)
        for tag, index in plan.indexes.items():
            self._put(tag, index)

    def _blob(self, digest: Digest, amount: int, progress: Progress) -> None:
        def attempt() -> None:
            location = None if self._registry.has_blob(digest) else self._registry.begin(digest)
            if location is None:
                progress.add(amount)
                return
            sent = 0

            def chunks() -> Iterator[bytes]:
                nonlocal sent
                for chunk in self._source.blob(digest):
                    sent += len(chunk)
                    progress.add(len(chunk))
                    yield chunk

            try:
                self._registry.upload(location, digest, amount, chunks())
            except Passing:
                progress.add(-sent)
                raise

        self._persist(attempt)

    def _put_once(self, document: _Document) -> None:
        def attempt() -> None:
            if not self._registry.has_manifest(document.digest):
                self._registry.put(document.digest, document.media_type, document.content)

        self._persist(attempt)

    def _put(self, tag: str, index: _Document) -> None:
        self._persist(lambda: self._registry.put(tag, index.media_type, index.content))

    def _refer(self, subject: Digest, referrer: _Document) -> None:
        def attempt() -> None:
            if not self._registry.put(referrer.digest, referrer.media_type, referrer.content):
                self._registry.add_referrer(subject, referrer.entry)

        self._persist(attempt)

    def _persist(self, attempt: Callable[[], object]) -> None:
        persist(attempt, self._patience, self._console.say)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Push images to a registry that nodes pull from: for each Python and libc an index over machines, with the tag "
        "that it has here (cp312-musl), its layers, and its lock as a referrer. What is there already is not sent. The "
        "login is the one that `docker login` or `podman login` wrote (or REGISTRY_AUTH_FILE names), the certificates "
        "to trust are the system's (or SSL_CERT_FILE's)."
    )
    add = parser.add_argument
    add("what", metavar="LOCK|WORKLOAD", help="a lock, by (the beginning of) its digest; a workload, as NAMESPACE/NAME")
    add("where", metavar="REGISTRY/NAME", help="the repository to push to, such as registry.example.com/team/checkout")
    add("--plain-http", action="store_true", help="the registry has no TLS; a login goes to it as it is")
    add(
        "--mount-from",
        metavar="NAME",
        action="append",
        default=[],
        help="a repository of the same registry that may have layers already; can be repeated",
    )
    remote.add_arguments(parser, timeout=1800)


def _publish(options: argparse.Namespace) -> int:
    place = Place.parse(options.where)
    mount_from = tuple(Place.parse(f"{place.host}/{name}").repository for name in options.mount_from)
    login = find_login(place.host, place.repository)
    console = Console()
    # What the environment says of proxies and certificates counts: a registry may be outside of the cluster.
    with remote.connect(options) as service, httpx.Client() as http:
        plan = _Source(service, source := _repository(options.what, service), console).plan()
        registry = Registry(http, place, login, service.patience, plain_http=options.plain_http, mount_from=mount_from)
        console.say(f"pushing {source}: {len(plan.blobs)} blobs, {size(sum(plan.blobs.values()))}")
        _Pushing(_Source(service, source, console), registry, service.patience, console).push(plan)
    for tag, index in plan.indexes.items():
        sys.stdout.write(plain(f"{options.where}:{tag}@{index.digest}") + "\n")
    return 0


def _repository(what: str, service: remote.Remote) -> str:
    if "/" in what:
        namespace, _, workload = what.partition("/")
        return f"{remote.segment(namespace)}/{remote.segment(workload)}"
    return f"locks/{service.digest(what).removeprefix('sha256:')}"


def _add_blobs(plan: _Plan, manifest: _Document) -> None:
    fields = manifest.fields
    for part in (fields["config"], *fields["layers"]):
        plan.blobs[Digest(part["digest"])] = int(part["size"])


PUBLISH = Command(_arguments, _publish)
