"""Builders elsewhere: each is started for one source distribution, asks this very process for its task, and is gone
afterwards. What it is sent:

    step.json                           which step, what it may take, its environment
    task/                               what the step is about
    lockstep/resolver/builds/inside/    the program that does it
    lockstep/pip/                       the service's own pip, so that equal tasks have equal wheels

A package's code runs there alone. What stands in an sdist, and what a builder made, is looked at here (plain.py).
"""

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pip

from resolver.builds import inside
from resolver.builds.builder import FORMAT, SandboxedBuilder
from resolver.builds.here import NO_CLASS, plain_name
from resolver.builds.plain import Plain
from resolver.builds.running import ENVIRONMENT, STEPS, Limits, Ran
from resolver.builds.tasks import Task, Tasks
from resolver.domain.builds import ANY
from resolver.domain.errors import BuilderUnavailable
from resolver.domain.ports import BuilderLauncher, Launched
from resolver.domain.targets import TargetEnvironment

_STEPS = 4
"""The most that a task has: asked twice what else it wants (building.py), and then made twice."""
_ON_THE_WAY = 150.0  # seconds, beyond those of the step: what it is sent, and what it answers
_BETWEEN = 600.0  # all together: what it wants is locked and fetched


class RemoteBuilders:
    """SdistBuilders that a launcher starts. `host`: the class of this process, for which builders for any platform have
    what builds want; None: of none that is known."""

    def __init__(self, launcher: BuilderLauncher, tasks: Tasks, limits: Limits, host: TargetEnvironment | None) -> None:
        self._launcher = launcher
        self._tasks = tasks
        self._limits = limits
        self._host = host

    def name(self, target: TargetEnvironment | None) -> str:
        """See SdistBuilders."""
        return plain_name(self._host) if target is None else f"{FORMAT}-{target.name}"

    async def unfit(self, target: TargetEnvironment) -> str | None:
        """See SdistBuilders."""
        return await self._launcher.missing(target.name)

    async def missing(self, target: TargetEnvironment | None) -> str | None:
        """See SdistBuilders."""
        if target is None and self._host is None:
            return NO_CLASS
        return await self._launcher.missing(target.name if target else ANY)

    @asynccontextmanager
    async def at_work(self, target: TargetEnvironment | None) -> AsyncIterator[SandboxedBuilder]:
        """See SdistBuilders. Nothing is started before there is something to build."""
        host = target or self._host
        assert host is not None  # noqa: S101 - `missing` was asked

        def suits(builder: TargetEnvironment) -> str | None:
            # What runs on any platform may be built where the C library is newer, as what builds want runs there too.
            alike = builder if target else replace(builder, rung=min(builder.rung, host.rung))
            return None if alike == host else f"its builder is {builder}, and has to be {host}"

        async with AsyncExitStack() as stack:
            task = stack.enter_context(self._tasks.opened(suits))
            remote = _Remote(self._launcher, task, target.name if target else ANY, self._limits, stack)
            yield SandboxedBuilder(remote, Plain(self._limits), host)


class _Remote:
    """The sandbox that is a builder elsewhere."""

    def __init__(
        self, launcher: BuilderLauncher, task: Task, place: str, limits: Limits, stack: AsyncExitStack
    ) -> None:
        self.limits = limits
        self._launcher = launcher
        self._task = task
        self._place = place
        self._stack = stack
        self._ended: asyncio.Task[str] | None = None

    @property
    def about(self) -> str:
        """See Sandbox. As the builder tells."""
        return self._task.builder

    async def run(self, step: str, task: Path, answer: Path) -> Ran:
        """See Sandbox. Raises BuilderUnavailable: no builder could be started, or none came."""
        parcel = answer.with_name("parcel")
        await asyncio.to_thread(pack, parcel, self._task.next_number, step, self.limits, task)
        ended = self._ended = self._ended or await self._launched()
        try:
            await self._come(ended)
            doing = asyncio.ensure_future(self._task.do(parcel, answer, self.limits))
            seconds = self.limits.seconds + _ON_THE_WAY
            waiting: set[asyncio.Future[Any]] = {doing, ended}
            try:
                await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if doing.done():
                    return doing.result()
            finally:
                doing.cancel()
        finally:
            await asyncio.to_thread(parcel.unlink)
        if ended.done():
            return Ran(0, f"its builder ended before it was done: {ended.result()}", "")
        return Ran(0, f"its builder did not answer within {seconds:g} s", "")

    async def _launched(self) -> asyncio.Task[str]:
        limits = self.limits
        seconds = limits.seconds + _BETWEEN + _STEPS * (limits.seconds + _ON_THE_WAY)
        launched: Launched = await self._stack.enter_async_context(
            self._launcher.launch(self._place, self._task.token, seconds)
        )
        ended = asyncio.ensure_future(launched.ended())
        self._stack.push_async_callback(_cancelled, ended)
        self._stack.callback(self._task.end)  # first of all, so that it may still hear of it
        return ended

    async def _come(self, ended: asyncio.Task[str]) -> None:
        """Wait for the builder's first question, as long as a step may take."""
        begun = asyncio.ensure_future(self._task.begun.wait())
        waiting: set[asyncio.Future[Any]] = {begun, ended}
        try:
            await asyncio.wait(waiting, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if begun.done():
                return
        finally:
            begun.cancel()
        if ended.done():
            raise BuilderUnavailable(f"the builder ended before it asked for its task: {ended.result()}")
        raise BuilderUnavailable(f"the builder did not ask for its task within {self.limits.seconds:g} s")


def pack(parcel: Path, number: int, step: str, limits: Limits, task: Path) -> None:
    """Write the file that a builder is sent: a step of that number, and the folder that says what it is about."""
    described = json.dumps(
        {
            "number": number,
            "step": step,
            "module": STEPS,
            "environment": ENVIRONMENT,
            "seconds": limits.seconds,
            "memory": limits.memory,
            "log": limits.log,
            "answer": limits.answer,
        }
    ).encode()
    library = f"lockstep/{STEPS.replace('.', '/')}"
    with tarfile.open(parcel, "w", dereference=True) as tar:
        info = tarfile.TarInfo("step.json")
        info.size = len(described)
        tar.addfile(info, io.BytesIO(described))
        for folder, place in (
            (task, "task"),
            (Path(inside.__file__).parent, library),
            (Path(pip.__file__).parent, "lockstep/pip"),
        ):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    tar.add(path, f"{place}/{path.relative_to(folder)}", recursive=False)


async def _cancelled(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.wait({task})
