"""What stands around images: an index over machines, and a lock as a referrer. Equal content makes equal bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from resolver.bundles.manifest import PLATFORM, PYTHON, canonical, platform
from resolver.domain.locks import Lock
from resolver.domain.targets import TargetEnvironment
from storage.content import EMPTY_CONFIG, INDEX, MANIFEST, Descriptor, Digest

LOCK = "dev.lockstep.lock"
LOCK_ARTIFACT = "application/vnd.dev.lockstep.pylock.v1+toml"

_EMPTY = b"{}"  # image-spec, manifest, "Guidance for an Empty Descriptor"
_TITLE = "org.opencontainers.image.title"  # what `oras pull` names the file


@dataclass(frozen=True, slots=True)
class Machine:
    """A bundle in an index: for this target class, made from this lock."""

    target: TargetEnvironment
    bundle: Descriptor
    lock: Digest


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index: its bytes, and the `blobs` that it names and that nothing else brings."""

    content: bytes
    descriptor: Descriptor
    artifact_type: str | None = None
    blobs: tuple[tuple[Digest, bytes], ...] = ()

    def to_json(self) -> dict[str, object]:
        """Its descriptor as a list of referrers shows it (distribution-spec, "Listing Referrers")."""
        body = self.descriptor.to_json()
        return body if self.artifact_type is None else {**body, "artifactType": self.artifact_type}


def index_over(machines: Sequence[Machine]) -> Document:
    """The index (image-spec, image-index) of these, one a machine, in any order."""
    manifests = []
    for machine in sorted(machines, key=lambda machine: machine.target.machine):
        target, bundle = machine.target, machine.bundle
        annotations = {PYTHON: target.python, PLATFORM: target.platform, LOCK: str(machine.lock)}
        described = Descriptor(bundle.media_type, bundle.digest, bundle.size, annotations)
        manifests.append({**described.to_json(), "platform": platform(target)})
    content = canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    return Document(content, Descriptor(INDEX, Digest.of(content), len(content)))


def lock_of(subject: Descriptor, lock: Lock) -> Document:
    """The lock as an artifact that refers to an image or an index (image-spec, manifest, `subject`)."""
    annotations = {_TITLE: "pylock.toml"}
    empty = Descriptor(EMPTY_CONFIG, Digest.of(_EMPTY), len(_EMPTY))
    file = Descriptor("application/toml", lock.digest, len(lock.content), annotations)
    own = {LOCK: str(lock.digest)}
    content = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": LOCK_ARTIFACT,
            "config": empty.to_json(),
            "layers": [file.to_json()],
            "subject": subject.to_json(),
            "annotations": own,
        }
    )
    blobs = ((empty.digest, _EMPTY), (lock.digest, lock.content))
    return Document(content, Descriptor(MANIFEST, Digest.of(content), len(content), own), LOCK_ARTIFACT, blobs)
