"""One layer, start to end, as a worker process makes it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from resolver.bundles.bytecode import compile_tree
from resolver.bundles.launchers import PTH_HOOK
from resolver.bundles.merge import merge
from resolver.bundles.pack import pack
from resolver.bundles.unpack import SITE_PACKAGES, unpack
from resolver.domain.ports import BuiltLayer


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
    timeout: float
    layers: Sequence[tuple[str, str]] = ()

    @property
    def staging(self) -> Path:
        """The folder that the work is done in; gone when it is done."""
        return Path(self.folder, f".layer-{self.token}")

    @property
    def result(self) -> Path:
        """The file that is left."""
        return Path(self.folder, f"layer-{self.token}.tar.zst")


def build_layer(job: LayerJob) -> BuiltLayer:
    """Do the job; on any failure nothing is left of it.

    Raises:
        InvalidWheel, DamagedLayer, TimedOut, InterpreterFailed, OSError.
    """
    packed_file = job.staging / "layer"
    job.staging.mkdir(mode=0o700)
    try:
        if job.layers:
            packed = merge([(Path(path), diff_id) for path, diff_id in job.layers], job.staging, packed_file)
        else:
            packed = pack(_tree(job), packed_file)
        packed_file.rename(job.result)
    finally:
        shutil.rmtree(job.staging)
    return BuiltLayer(
        path=job.result,
        digest=packed.digest,
        size=packed.size,
        diff_id=packed.diff_id,
        tar_size=packed.tar_size,
        unpacked_size=packed.unpacked_size,
        listing=packed.listing,
        has_pth=any(_is_pth(PurePosixPath(path)) for path in packed.listing),
        has_bytecode=job.interpreter is not None,
    )


def _tree(job: LayerJob) -> Path:
    tree = job.staging / "tree"
    tree.mkdir()
    if job.wheel is None:
        hook = tree / SITE_PACKAGES / "sitecustomize.py"
        hook.parent.mkdir()
        hook.write_bytes(PTH_HOOK)
    else:
        unpack(Path(job.wheel), job.filename, job.python, tree)
    if job.interpreter is not None:
        compile_tree(tree, Path(job.interpreter), job.compilers, job.timeout)
    return tree


def _is_pth(path: PurePosixPath) -> bool:
    return path.suffix == ".pth" and path.parts[:-1] == (SITE_PACKAGES,)
