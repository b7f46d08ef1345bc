"""Bundles as an OCI client asks for them: repositories, tags, manifests, and what refers to a manifest.

    bundles                    every bundle, by its digest; no tags
    <namespace>/<workload>     what its newest pin says, by tag
    locks/<hexadecimal>        what one lock says, by tag

A tag is a Python and a libc, `cp312-musl`, because that is what an image's user has to know and a runtime does not; it
names an index over machines, which a runtime does know. Documents that are made here are kept as blobs, as long as the
bundles that they are about: whoever got a digest from one replica gets its bytes from any other.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from resolver.bundles.artifacts import LOCK, Document, Machine, index_over, lock_of
from resolver.domain.errors import Busy, InvalidWheel, NotFound
from resolver.domain.targets import TargetEnvironment
from resolver.service.contents import Contents
from resolver.service.delegation import ColdWorkNeeded
from resolver.service.lock_book import LockBook
from resolver.service.materialise import Materialising
from resolver.service.progress import Progress
from resolver.service.uses import Lately, Uses
from storage.blob_protocols import BlobStore
from storage.content import INDEX, MANIFEST, Descriptor, Digest
from storage.errors import BlobNotFound
from storage.protocols import ContentStore, ImageStore

ANY_BUNDLE = "bundles"

_LOCK = re.compile(r"locks/([0-9a-f]{64})")
_WORKLOAD = re.compile(r"([a-z0-9][-a-z0-9.]{0,252})/([a-z0-9][-a-z0-9.]{0,252})")
_LARGEST_DOCUMENT = 4 << 20  # distribution-spec, "Pushing Manifests": what every client can be expected to take
_PATIENCE = 25.0
"""Seconds that a pull waits for what has to be built first."""
_RETRY_AFTER = 5.0
_TURNS = 3

log = structlog.get_logger(__name__)

Covered = dict[TargetEnvironment, Digest]
"""The lock that is for each target class."""


def lock_of_repository(name: str) -> Digest | None:
    """The lock whose repository this would be."""
    match = _LOCK.fullmatch(name)
    return Digest.from_hex(match[1]) if match else None


def namespace_of_repository(name: str) -> str | None:
    """The namespace of the workload whose repository this would be."""
    match = _WORKLOAD.fullmatch(name)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest or index that is here."""

    content: bytes
    descriptor: Descriptor

    @property
    def fields(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = json.loads(self.content)
        return found


class Images:
    """Answers the pull half of the distribution-spec."""

    def __init__(
        self,
        blobs: BlobStore,
        images: ImageStore,
        claims: ContentStore,
        contents: Contents,
        book: LockBook,
        materialising: Materialising,
        uses: Uses,
        *,
        every: timedelta,
    ) -> None:
        self._blobs = blobs
        self._images = images
        self._claims = claims
        self._contents = contents
        self._book = book
        self._materialising = materialising
        self._uses = uses
        self._known = Lately(every)
        self._kept = Lately(every)

    async def require(self, repository: str) -> None:
        """Raises NotFound where there is no such repository."""
        if repository != ANY_BUNDLE and repository not in self._known:
            await self._tags(repository)

    async def tags(self, repository: str) -> list[str]:
        """The tags in the order of their bytes. Raises NotFound."""
        return sorted(await self._tags(repository)) if repository != ANY_BUNDLE else []

    async def tagged(self, repository: str, tag: str) -> Stored:
        """The index over machines that the tag names; a bundle that is not there is made now.

        Raises:
            NotFound: no such repository, or no such tag in it.
            Busy: it takes a while, or a worker has to do it.
            What making a bundle raises.
        """
        covered = (await self._tags(repository)).get(tag) if repository != ANY_BUNDLE else None
        if covered is None:
            raise NotFound("manifest", f"{repository}:{tag}")
        try:
            async with asyncio.timeout(_PATIENCE):
                for _ in range(_TURNS):
                    index = index_over(machines := await self._machines(covered))
                    if await self._keep(index, [machine.bundle.digest for machine in machines]):
                        return Stored(index.content, index.descriptor)
        except TimeoutError:
            raise Busy("building an image", _RETRY_AFTER, "still under way") from None
        raise Busy("building an image", _RETRY_AFTER, "what it is made of keeps going away")

    async def stored(self, repository: str, digest: Digest) -> Stored:
        """The manifest or index with this digest. Raises NotFound."""
        await self.require(repository)
        found = await self._stored(digest)
        if found is None:
            raise NotFound("manifest", digest)
        return found

    async def referrers(self, repository: str, digest: Digest) -> list[Document]:
        """The manifests whose subject this is; none for what is not here, as the specification has it.

        Raises:
            NotFound: no such repository.
        """
        await self.require(repository)
        found = await self._stored(digest)
        if found is None:
            return []
        if found.descriptor.media_type == INDEX:
            entries = found.fields.get("manifests", [])
            locks = sorted({Digest(entry["annotations"][LOCK]) for entry in entries if LOCK in entry["annotations"]})
            bundles = [Digest(entry["digest"]) for entry in entries]
        else:
            locks, bundles = await self._images.locks_of(digest), [digest]
        documents = [lock_of(found.descriptor, await self._book.get(lock)) for lock in locks]
        return [document for document in documents if await self._keep(document, bundles)]

    async def _tags(self, repository: str) -> dict[str, Covered]:
        if named := lock_of_repository(repository):
            lock = await self._book.get(named)
            found = _by_tag(dict.fromkeys(lock.targets, lock.digest))
        elif match := _WORKLOAD.fullmatch(repository):
            found = await self._of_workload(match[1], match[2])
        else:
            found = {}
        if not found:
            raise NotFound("repository", repository)
        self._known.add(repository)
        return found

    async def _of_workload(self, namespace: str, workload: str) -> dict[str, Covered]:
        found: dict[str, Covered] = {}
        for pin in await self._images.newest_pins(namespace, workload):
            covered = dict.fromkeys((await self._book.get(pin.lock)).targets, pin.lock)
            covered |= {TargetEnvironment.from_name(name): lock for name, lock in pin.extensions}
            for tag, machines in _by_tag(covered).items():
                found.setdefault(tag, machines)
        if found:
            # Only what has a pin: else whoever asks for anything would have it written down.
            await self._uses.see(namespace, workload)
        return found

    async def _machines(self, covered: Covered) -> list[Machine]:
        """The bundles, made now where they are not there. One that cannot be made here is no reason to keep the others
        from machines of their kind."""
        found = await asyncio.gather(*(self._machine(target, lock) for target, lock in covered.items()))
        machines = [machine for machine in found if isinstance(machine, Machine)]
        for failure in found:
            if not machines and isinstance(failure, ColdWorkNeeded):
                raise Busy("building an image", _RETRY_AFTER, "no worker has built its bundles") from failure
            if not machines and isinstance(failure, InvalidWheel):
                raise failure
        return machines

    async def _machine(self, target: TargetEnvironment, lock: Digest) -> Machine | ColdWorkNeeded | InvalidWheel:
        try:
            record = await self._materialising.bundle(await self._book.get(lock), target, Progress())
        except (ColdWorkNeeded, InvalidWheel) as failure:
            log.warning("image.machine-left-out", target=target.name, lock=lock, cause=str(failure))
            return failure
        size = await self._blobs.size(record.digest)
        if size is None:
            raise BlobNotFound(record.digest)
        return Machine(target, Descriptor(MANIFEST, record.digest, size), lock)

    async def _stored(self, digest: Digest) -> Stored | None:
        """What is here by that digest, if it is a manifest or index; other blobs are no business of a client's here."""
        try:
            content = await self._contents.find(digest)
            if content.size > _LARGEST_DOCUMENT or content.packed is not None:
                return None
            found = b"".join([chunk async for chunk in self._contents.read(content, 0, content.size)])
            media_type = json.loads(found).get("mediaType") if Digest.of(found) == digest else None
        except (BlobNotFound, ValueError, AttributeError):
            return None
        if media_type not in (MANIFEST, INDEX):
            return None
        return Stored(found, Descriptor(media_type, digest, len(found)))

    async def _keep(self, document: Document, bundles: Collection[Digest]) -> bool:
        """Keep the document as long as one of these bundles is kept; False where none of them is any more."""
        digest = document.descriptor.digest
        if digest in self._kept and await self._blobs.size(digest) is not None:
            return True
        parts = {**dict(document.blobs), digest: document.content}
        claims = await self._claims.claim(parts)
        for part, content in parts.items():
            if await self._blobs.size(part) is None:
                await self._blobs.write(_one(content), part)
        attached = [await self._images.attach(bundle, claims) for bundle in bundles]
        if any(attached):
            self._kept.add(digest)
        return any(attached)


def _by_tag(covered: Covered) -> dict[str, Covered]:
    """By tag, one target class a machine: of several the one with the oldest libc, since that runs wherever the newer
    ones do, and a runtime cannot tell them apart."""
    found: dict[str, Covered] = {}
    for target in sorted(covered, key=lambda target: target.rung, reverse=True):
        machines = found.setdefault(f"cp{target.python.replace('.', '')}-{target.libc}", {})
        for newer in [other for other in machines if other.machine == target.machine]:
            del machines[newer]
        machines[target] = covered[target]
    return found


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
