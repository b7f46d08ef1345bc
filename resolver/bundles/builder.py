"""Builds layers in worker processes."""

import asyncio
import dataclasses
import errno
import hashlib
import json
import secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from resolver.bundles.job import LayerJob
from resolver.bundles.launchers import FINGERPRINT
from resolver.bundles.pack import COMPRESSOR
from resolver.bundles.pool import WorkerLost, WorkerPool
from resolver.domain.errors import DamagedLayer, InvalidWheel, LayerBuildFailed, TimedOut
from resolver.domain.layers import BuiltLayer
from storage.content import Digest
from storage.errors import StorageFull

# Counted up whenever the same wheel comes to be laid out, compiled or packed in another way.
_LAYER_FORMAT = "layer-v3"
_INSTALLER = f"installer-{version('installer')}"
_HOOK = "sitecustomize"


class Interpreter(Protocol):
    """An interpreter that compiles: its program, its whole version such as `3.12.1`, and the magic number of its
    byte-code."""

    @property
    def path(self) -> Path:
        """The program."""
        ...

    @property
    def version(self) -> str:
        """Such as `3.12.1`."""
        ...

    @property
    def magic(self) -> str:
        """The magic number, hexadecimal."""
        ...


class ProcessLayerBuilder:
    """LayerBuilder in `workers` processes, each compiling in up to `compilers` more.

    `interpreters` are by minor version (`3.12`); a Python that has none gets layers without byte-code. A build that is
    not done `timeout` seconds after a worker took it up is ended.
    """

    def __init__(
        self, interpreters: Mapping[str, Interpreter], *, workers: int = 2, compilers: int = 2, timeout: float = 600.0
    ) -> None:
        self._interpreters = dict(interpreters)
        self._pool = WorkerPool(workers)
        self._compilers = compilers
        self._timeout = timeout

    def start(self) -> None:
        """Start the workers before there is work for them. Not needed, but a first build waits for its worker."""
        self._pool.start()

    def toolchain(self, python: str) -> str:
        """See LayerBuilder. What writes the tar counts: the standard library of the service's own minor version."""
        interpreter = self._interpreters.get(python)
        compiler = "none" if interpreter is None else f"cpython-{interpreter.version}-{interpreter.magic}"
        packer = f"tarfile-{sys.version_info.major}.{sys.version_info.minor}"
        parts = (_LAYER_FORMAT, _INSTALLER, FINGERPRINT, packer, COMPRESSOR, compiler)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    def has_interpreter(self, python: str) -> bool:
        """See LayerBuilder."""
        return python in self._interpreters

    async def build(self, wheel: Path, filename: str, python: str, folder: Path) -> BuiltLayer:
        """See LayerBuilder.

        Raises:
            InvalidWheel: it breaks PEP 427, reaches outside of its tree, or expands without end.
            TimedOut: the build's time was up; its processes are gone.
            StorageFull: no room in `folder`.
            Busy: the builder is closed.
            LayerBuildFailed: two workers in a row were lost over it, or the interpreter failed.
        """
        return await self._run(self._job(wheel, filename, python, folder))

    async def build_pth_hook(self, python: str, folder: Path) -> BuiltLayer:
        """See LayerBuilder; raises as `build` does."""
        return await self._run(self._job(None, _HOOK, python, folder))

    async def merge(self, layers: Sequence[tuple[Path, Digest]], python: str, folder: Path) -> BuiltLayer:
        """See LayerBuilder; raises as `build` does, but no InvalidWheel."""
        job = self._job(None, f"{len(layers)} layers", python, folder)
        pairs = [(str(path.absolute()), str(diff_id)) for path, diff_id in layers]
        return await self._run(dataclasses.replace(job, layers=pairs))

    async def close(self) -> None:
        """End all workers; builds under way, and any later ones, fail as Busy."""
        await self._pool.close()

    def _job(self, wheel: Path | None, filename: str, python: str, folder: Path) -> LayerJob:
        interpreter = self._interpreters.get(python)
        return LayerJob(
            wheel=None if wheel is None else str(wheel.absolute()),
            filename=filename,
            python=python,
            interpreter=None if interpreter is None else str(interpreter.path),
            folder=str(folder.absolute()),
            token=secrets.token_hex(8),
            compilers=self._compilers,
        )

    async def _run(self, job: LayerJob) -> BuiltLayer:
        try:
            answer = await asyncio.to_thread(json.loads, await self._ask(job))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(_remove, job))
            raise
        if "layer" not in answer:
            raise _failure(job.filename, answer)
        return _layer(answer["layer"])

    async def _ask(self, job: LayerJob) -> bytes:
        line = json.dumps(dataclasses.asdict(job)).encode()
        size = await asyncio.to_thread(_bytes, job)
        try:
            try:
                return await self._pool.run(line, self._timeout, size)
            except WorkerLost:
                # Whatever took the worker (the kernel, short of memory) may have meant another; once more, then.
                await asyncio.to_thread(_remove, job)
                return await self._pool.run(line, self._timeout, size)
        except WorkerLost as error:
            raise LayerBuildFailed(job.filename, str(error)) from error
        except TimeoutError:
            raise TimedOut(f"building the layer of {job.filename}", self._timeout) from None


def _bytes(job: LayerJob) -> int:
    """How much the job is about; nothing of a file that is gone, which the worker will say."""
    paths = [Path(job.wheel)] if job.wheel else [Path(path) for path, _ in job.layers]
    return sum(path.stat().st_size for path in paths if path.exists())


def _layer(fields: dict[str, Any]) -> BuiltLayer:
    fields["path"] = Path(fields["path"])
    fields["digest"] = Digest(fields["digest"])
    fields["diff_id"] = Digest(fields["diff_id"])
    return BuiltLayer(**fields)


def _failure(filename: str, answer: dict[str, Any]) -> Exception:
    match answer["error"]:
        case "invalid-wheel":
            return InvalidWheel(answer["file"], answer["reason"])
        case "damaged-layer":
            return DamagedLayer(answer["reason"])
        case "storage-full":
            return StorageFull(f"no room to build the layer of {filename}")
        case _:
            return LayerBuildFailed(filename, answer["reason"], answer["trace"])


def _remove(job: LayerJob) -> None:
    """Remove what a job left that was ended midway. A compiler that was killed may still be on its way out, and write
    one more file: so not one attempt alone."""
    job.result.unlink(missing_ok=True)
    for attempt in range(20):
        try:
            shutil.rmtree(job.staging)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == 19:
                raise
            time.sleep(0.05)
        else:
            return
