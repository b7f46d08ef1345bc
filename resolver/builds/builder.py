"""Wheels of source distributions: each step in a sandbox of its own, the wheel made twice and compared."""

import asyncio
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from resolver.builds.sandbox import Bubblewrap
from resolver.domain.builds import BuildPolicy, Built, Failed, SdistFacts, Wants
from resolver.domain.redaction import redact
from storage.content import Digest

_FORMAT = "build-v1"
"""Counted up whenever the same sdist and requirements come to make another wheel."""
_SDIST = re.compile(r"[A-Za-z0-9._+!-]+\.(?:tar\.gz|tgz|tar\.bz2|zip)")
_WHEEL = re.compile(r"[A-Za-z0-9._+!-]+\.whl")
_PURE = Tag("py3", "none", "any")
_MOST_HEADER = 4 << 20
_CHUNK = 1 << 20


class _Answer(NamedTuple):
    said: dict[str, Any]
    wheel: Path
    log: str


class SandboxedBuilder:
    """SdistBuilder on this machine, with the interpreter that runs the service."""

    def __init__(self, sandbox: Bubblewrap) -> None:
        self._sandbox = sandbox

    @property
    def name(self) -> str:
        """See SdistBuilder."""
        major, minor = sys.version_info[:2]
        return f"{_FORMAT}-cp{major}{minor}"

    async def missing(self) -> str | None:
        """See SdistBuilder."""
        return await self._sandbox.missing()

    async def read(self, sdist: Path, filename: str, folder: Path) -> SdistFacts | Failed:
        """See SdistBuilder."""
        if not _SDIST.fullmatch(filename):
            return Failed("its file name is none of a source distribution (PEP 625)")
        if (await asyncio.to_thread(sdist.stat)).st_size > self._sandbox.limits.disk:
            return Failed(f"it is larger than what a build may write, {self._sandbox.limits.disk} bytes")
        answer = await self._step("read", folder, {filename: sdist}, {"sdist": f"/task/{filename}"})
        if isinstance(answer, Failed):
            return answer
        said = answer.said
        return SdistFacts(
            metadata=str(said["metadata"]).encode(),
            requires=tuple(said["requires"]),
            backend=said["backend"],
            backend_path=tuple(said["backend_path"]),
        )

    async def build(
        self,
        sdist: tuple[str, Path],
        facts: SdistFacts,
        wheels: Mapping[str, Path],
        folder: Path,
        policy: BuildPolicy,
        *,
        final: bool,
    ) -> Built | Wants | Failed:
        """See SdistBuilder."""
        filename, path = sdist
        if odd := [name for name in wheels if not _WHEEL.fullmatch(name)]:
            return Failed(f"a wheel that it wants has an odd name, {odd[0][:200]!r}")
        task = {
            "sdist": f"/task/{filename}",
            "wheels": [f"/task/{wheel}" for wheel in sorted(wheels)],
            "backend": facts.backend,
            "backend_path": [*facts.backend_path],
            "final": final,
            "compilers": policy == "native",
        }
        started = time.monotonic()
        made: list[_Answer] = []
        for attempt in ("first", "second"):
            answer = await self._step("build", folder / attempt, {filename: path, **wheels}, task)
            if isinstance(answer, Failed) and not made:
                return answer
            if isinstance(answer, Failed) or answer.said.get("wheel") != (made or [answer])[0].said.get("wheel"):
                break  # of the two, one was made: that it does not come out the same is said
            if isinstance(wants := answer.said.get("wants"), list):
                return Wants(tuple(str(text) for text in wants))
            made.append(answer)
        return await self._accepted(made, folder, time.monotonic() - started, policy)

    async def _accepted(self, made: list[_Answer], folder: Path, seconds: float, policy: BuildPolicy) -> Built | Failed:
        filename, log = str(made[0].said.get("wheel")), made[0].log
        try:
            _, _, _, tags = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            return Failed(f"it made {filename[:200]!r}, whose name is none of a wheel (PEP 427)", log)
        if not _WHEEL.fullmatch(filename):
            return Failed(f"it made {filename[:200]!r}, whose name is none of a wheel (PEP 427)", log)
        wheels = {f"{number}.whl": answer.wheel for number, answer in enumerate(made)}
        task = {"wheels": [f"/task/{name}" for name in wheels]}
        answer = await self._step("accept", folder / "accept", wheels, task)
        if isinstance(answer, Failed):
            return Failed(answer.cause, log)
        pure = _PURE in tags
        if policy != "native" and not pure:
            return Failed(f"it made {filename}, which is not for any platform: that needs `builds: native`", log, True)
        if foreign := answer.said["foreign"]:
            return Failed(f"it made {filename}, which needs libraries that a target may not have: {foreign}", log)
        if pure and answer.said["compiled"]:
            return Failed(f"it made {filename}, which says that it is for any platform, and has compiled code", log)
        digest = await asyncio.to_thread(_digest, answer.wheel)
        size = (await asyncio.to_thread(answer.wheel.stat)).st_size
        same = len(made) > 1 and bool(answer.said["same"])
        return Built(answer.wheel, filename, tags, pure, digest, size, same, seconds, log)

    async def _step(
        self,
        step: str,
        folder: Path,
        files: Mapping[str, Path],
        task: Mapping[str, Any],
    ) -> _Answer | Failed:
        """What the step answers; what goes with the answer is a file in the folder."""
        given, answer, wheel = folder / "task", folder / "answer", folder / "wheel"
        asked = json.dumps({**task, "limits": self._sandbox.inner_limits()})
        await asyncio.to_thread(_lay_out, given, files, asked)
        ran = await self._sandbox.run(step, given, answer)
        await asyncio.to_thread(shutil.rmtree, given)
        if ran.stopped is not None:
            return Failed(ran.stopped, ran.log)
        said = await asyncio.to_thread(_split, answer, wheel)
        if said is None:
            how = f"by signal {-ran.code}" if ran.code < 0 else f"with {ran.code}"
            return Failed(f"it ended {how}, and told nothing", ran.log)
        if "failed" in said and said.get("compiler"):
            return Failed("it wants a compiler, which builds have with `builds: native` alone", ran.log, True)
        if "failed" in said:
            return Failed(redact(str(said["failed"])), ran.log)
        return _Answer(said, wheel, ran.log)


def _lay_out(folder: Path, files: Mapping[str, Path], task: str) -> None:
    """The files under their names, and the task, for another user to read: who runs in the sandbox is one."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    for name, path in files.items():
        shutil.copyfile(path, folder / name)
        (folder / name).chmod(0o644)
    (folder / "task.json").write_text(task)
    (folder / "task.json").chmod(0o644)


def _split(answer: Path, wheel: Path) -> dict[str, Any] | None:
    """The line of JSON; what stands behind it goes to a file. None where there is no such line."""
    with answer.open("rb") as file:
        line = file.readline(_MOST_HEADER)
        said = None
        with suppress(ValueError, RecursionError):
            said = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(said, dict):
            return None
        with wheel.open("wb") as rest:
            shutil.copyfileobj(file, rest, _CHUNK)
    answer.unlink()
    return said


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest.from_hex(hashlib.file_digest(file, "sha256").hexdigest())
