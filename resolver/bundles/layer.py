"""One layer, start to end, as a worker process makes it."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath

from resolver.bundles.bytecode import compiled
from resolver.bundles.compilers import Compilers
from resolver.bundles.job import LayerJob
from resolver.bundles.launchers import PTH_HOOK
from resolver.bundles.merge import merge
from resolver.bundles.pack import write_layer
from resolver.bundles.tree import Tree, members, text
from resolver.bundles.unpack import SITE_PACKAGES, unpacked
from resolver.domain.layers import BuiltLayer


def build_layer(job: LayerJob, compilers: Compilers) -> BuiltLayer:
    """Do the job; on any failure nothing is left of it. It has no end of its own: who waits for it ends the process.

    Raises:
        InvalidWheel, DamagedLayer, InterpreterFailed, OSError.
    """
    packed_file = job.staging / "layer"
    job.staging.mkdir(mode=0o700)
    try:
        if job.layers:
            packed = merge([(Path(path), diff_id) for path, diff_id in job.layers], job.staging, packed_file)
        else:
            # Closed before the tree is: a failure leaves it in the middle of a file.
            with _tree(job, compilers) as tree, closing(members(tree)) as found:
                packed = write_layer(found, packed_file)
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


@contextmanager
def _tree(job: LayerJob, compilers: Compilers) -> Iterator[Tree]:
    with _sources(job) as tree:
        if job.interpreter is None:
            yield tree
            return
        with compiled(tree, Path(job.interpreter), job.staging, job.compilers, compilers) as bytecode:
            yield {**tree, **bytecode}


@contextmanager
def _sources(job: LayerJob) -> Iterator[Tree]:
    if job.wheel is None:
        yield {f"{SITE_PACKAGES}/sitecustomize.py": text(PTH_HOOK)}
        return
    with unpacked(Path(job.wheel), job.filename, job.python) as tree:
        yield tree


def _is_pth(path: PurePosixPath) -> bool:
    return path.suffix == ".pth" and path.parts[:-1] == (SITE_PACKAGES,)
