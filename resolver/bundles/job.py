"""What travels between the service and a worker: all that the service loads of the building itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LENGTH = 8
"""Bytes that the length of a worker's answer takes."""


@dataclass(frozen=True, slots=True)
class LayerJob:
    """What to build. `wheel` is a file, published as `filename` (None: the `.pth` hook instead of a wheel); `layers`
    are the files of layers to merge instead, each with its diff_id; `token` names what the job leaves in `folder`.
    Plain values, since a job travels to a worker as JSON."""

    wheel: str | None
    filename: str
    python: str
    interpreter: str | None
    folder: str
    token: str
    compilers: int
    layers: Sequence[tuple[str, str]] = ()

    @property
    def staging(self) -> Path:
        """The folder that the work is done in; gone when it is done."""
        return Path(self.folder, f".layer-{self.token}")

    @property
    def result(self) -> Path:
        """The file that is left."""
        return Path(self.folder, f"layer-{self.token}.tar.zst")
