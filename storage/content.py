"""Digests, descriptors and media types, as the OCI image specification has them."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Self

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_TAR_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


class InvalidDigest(ValueError):
    """The text is not a digest that Lockstep uses: `sha256:` and 64 lower-case hexadecimal digits."""


CHUNK = 1 << 20
"""Bytes of a content that are read, hashed and written at a time, unless somebody asks for fewer."""


class Digest(str):
    """The name of a content: `sha256:<hex>` (OCI image-spec, descriptor, "Digests")."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Raises InvalidDigest for a text that is none."""
        if not _DIGEST.fullmatch(text):
            raise InvalidDigest(f"not a sha256 digest: {text[:80]!r}")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The digest of these bytes."""
        return cls("sha256:" + hashlib.sha256(content).hexdigest())

    @classmethod
    def from_hex(cls, hexadecimal: str) -> Self:
        """The digest with this SHA-256, given as 64 hexadecimal digits."""
        return cls("sha256:" + hexadecimal)

    @property
    def hex(self) -> str:
        """The part behind the colon."""
        return self[7:]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a content is, which, and how large (OCI image-spec, descriptor)."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The JSON form; `annotations` only where there are any."""
        body: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            body["annotations"] = dict(sorted(self.annotations.items()))
        return body
