"""Wheels of source distributions: each step in a sandbox of its own, the wheel made twice and compared."""

import asyncio
import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from resolver.builds.running import Sandbox
from resolver.domain.builds import BuildPolicy, Built, Failed, SdistFacts, Wants
from resolver.domain.redaction import redact
from resolver.domain.targets import TargetEnvironment
from storage.content import Digest

FORMAT = "build-v1"
"""Counted up whenever the same sdist and requirements come to make another wheel."""
_SDIST = re.compile(r"[A-Za-z0-9._+!-]+\.(?:tar\.gz|tgz|tar\.bz2|zip)")
_WHEEL = re.compile(r"[A-Za-z0-9._+!-]+\.whl")
_PURE = Tag("py3", "none", "any")
_MOST_HEADER = 4 << 20
_MOST_CAUSE = 500
_LONGEST_NAME = 255
_CHUNK = 1 << 20


class _Answer(NamedTuple):
    said: dict[str, Any]
    wheel: Path
    log: str


class SandboxedBuilder:
    """SdistBuilder on two sandboxes: one for a package's code, and one (which may be the same) for what looks at what
    such code made. `host`: the class of the interpreter in the first."""

    def __init__(self, building: Sandbox, looking: Sandbox, host: TargetEnvironment) -> None:
        self._building = building
        self._looking = looking
        self.host = host

    async def read(self, sdist: Path, filename: str, folder: Path) -> SdistFacts | Failed:
        """See SdistBuilder."""
        if not _SDIST.fullmatch(filename):
            return Failed("its file name is none of a source distribution (PEP 625)")
        if (await asyncio.to_thread(sdist.stat)).st_size > self._looking.limits.disk:
            return Failed(f"it is larger than what a build may write, {self._looking.limits.disk} bytes")
        answer = await _step(self._looking, "read", folder, {filename: sdist}, {"sdist": filename})
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
            "sdist": filename,
            "wheels": sorted(wheels),
            "backend": facts.backend,
            "backend_path": [*facts.backend_path],
            "final": final,
            "compilers": policy == "native",
        }
        started = time.monotonic()
        made: list[_Answer] = []
        for attempt in ("first", "second"):
            answer = await _step(self._building, "build", folder / attempt, {filename: path, **wheels}, task)
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
        if not _WHEEL.fullmatch(filename) or len(filename) > _LONGEST_NAME:
            return Failed(f"it made {filename[:200]!r}, whose name is none of a wheel (PEP 427)", log)
        wheels = {f"{number}.whl": answer.wheel for number, answer in enumerate(made)}
        task = {"wheels": [*wheels], "libc": self.host.libc}
        answer = await _step(self._looking, "accept", folder / "accept", wheels, task)
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
        glibc = tuple(answer.said["glibc"]) if answer.said["glibc"] else None
        by = self._building.about
        return Built(answer.wheel, filename, tags, pure, glibc, digest, size, same, by, seconds, log)


async def _step(
    sandbox: Sandbox, step: str, folder: Path, files: Mapping[str, Path], task: Mapping[str, Any]
) -> _Answer | Failed:
    """What the step answers; what goes with the answer is a file in the folder."""
    given, answer, wheel = folder / "task", folder / "answer", folder / "wheel"
    asked = json.dumps({**task, "limits": sandbox.limits.inner})
    await asyncio.to_thread(_lay_out, given, files, asked)
    ran = await sandbox.run(step, given, answer)
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
        return Failed(redact(str(said["failed"]))[:_MOST_CAUSE], ran.log)
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
