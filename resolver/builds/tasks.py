"""Tasks that wait for their builders, in this process alone: if it dies, so do they, and whoever takes its work over
starts other builders.

A task is done step by step. A builder asks for it with the token that was made for it, and for nothing else; it is
handed the step that is due, as often as it asks, until it has answered. What it answers is what a stranger sent.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from resolver.builds.running import Limits, Ran, log_of
from resolver.domain.errors import BuilderUnavailable, Busy, RequestTooLarge, Unauthenticated
from resolver.domain.targets import TargetEnvironment

LINE = 512 << 10
"""Bytes of the line that an answer begins with."""
_STEP_WITHIN = 10.0  # seconds; then a builder asks anew
_ANSWER_WITHIN = 120.0
_RETRY_AFTER = 1.0
_CAUSE = 500


@dataclass(slots=True)
class Step:
    """One step: the file that a builder is sent, and the one that its answer goes to, with what it may take."""

    number: int
    parcel: Path
    answer: Path
    limits: Limits
    ran: asyncio.Future[Ran] = field(default_factory=asyncio.Future)
    arriving: bool = False


class Task:
    """What one builder is to do. `suits` says why a builder of some class is none for it, None where it is one."""

    def __init__(self, token: str, suits: Callable[[TargetEnvironment], str | None]) -> None:
        self.token = token
        self.begun = asyncio.Event()
        """A builder for it has come."""
        self.builder = ""
        """What that one says of itself."""
        self._suits = suits
        self._step: Step | None = None
        self._answered = 0
        self._news = asyncio.Event()
        self._unfit: str | None = None
        self._over = False

    async def do(self, parcel: Path, answer: Path, limits: Limits) -> Ran:
        """Let the builder do a step; for how long is for whoever asks.

        Raises:
            BuilderUnavailable: who came is none for it.
        """
        if self._unfit is not None:
            raise BuilderUnavailable(self._unfit)
        step = self._step = Step(self.next_number, parcel, answer, limits)
        self._news.set()
        try:
            return await step.ran
        finally:
            self._withdraw(step)

    @property
    def next_number(self) -> int:
        """The number of the step that is due, or that will be."""
        return self._answered + 1

    async def due(self, builder: TargetEnvironment) -> Step | None:
        """The step for a builder of this class; None: nothing is left for it to do.

        Raises:
            Busy: none is due yet; ask again.
        """
        self.begun.set()
        if unfit := self._suits(builder):
            self.refuse(unfit)
        if self._unfit is not None or self._over:
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(_STEP_WITHIN):
                await self._news.wait()
        if self._step is None and not self._over:
            raise Busy("building", _RETRY_AFTER, "no step is due yet")
        return self._step

    def refuse(self, unfit: str) -> None:
        """Who came is no builder for it, for this reason."""
        self._unfit = unfit
        self.begun.set()
        if self._step is not None and not self._step.ran.done():
            self._step.ran.set_exception(BuilderUnavailable(unfit))

    async def answer(self, number: int, content: AsyncIterator[bytes]) -> None:
        """Take what a builder tells of a step: a line of JSON on how it ran, then what it answered.

        Raises:
            Unauthenticated: that step is not due.
            Busy: an answer to it is on its way already.
            RequestTooLarge: the step ends with that.
        """
        if 0 < number == self._answered:
            return  # it did not hear that its answer had come
        step = self._step
        if step is None or step.number != number:
            raise Unauthenticated("that step is not due")
        if step.arriving:
            raise Busy("building", _RETRY_AFTER, "an answer is on its way already")
        step.arriving = True
        try:
            # Opened before its time begins to run: what a thread opens for nobody stays open.
            with await asyncio.to_thread(step.answer.open, "wb") as file:
                async with asyncio.timeout(_ANSWER_WITHIN):
                    line = await _received(content, file, step.limits.answer)
        except TimeoutError:
            raise Busy("building", _RETRY_AFTER, "the answer did not arrive in time") from None
        except RequestTooLarge:
            self._settle(step, Ran(0, f"its answer is over {step.limits.answer} bytes", ""))
            raise
        finally:
            step.arriving = False
        self._settle(step, _told(line))

    def end(self) -> None:
        """Nothing is left to be done."""
        self._over = True
        self._news.set()

    def _settle(self, step: Step, ran: Ran) -> None:
        if not step.ran.done():
            self._answered = step.number
            self._withdraw(step)
            step.ran.set_result(ran)

    def _withdraw(self, step: Step) -> None:
        if self._step is step:
            self._step = None
            if not self._over:
                self._news.clear()


class Tasks:
    """Finds tasks by their tokens. There are as many as builds are under way."""

    def __init__(self) -> None:
        self._tasks: dict[bytes, Task] = {}

    @contextmanager
    def opened(self, suits: Callable[[TargetEnvironment], str | None]) -> Iterator[Task]:
        """A task, which is there as long as the context is."""
        task = Task(secrets.token_urlsafe(32), suits)
        name = _digest(task.token)
        self._tasks[name] = task
        try:
            yield task
        finally:
            del self._tasks[name]
            task.end()

    def of(self, token: str | None) -> Task:
        """The task that the token is for. Raises Unauthenticated."""
        task = self._tasks.get(_digest(token or ""))
        if task is None:
            raise Unauthenticated("a token of a task is needed")
        return task


def _digest(token: str) -> bytes:
    """What tokens are looked up by: how long that takes tells nothing of them."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


async def _received(content: AsyncIterator[bytes], file: BinaryIO, most: int) -> bytes:
    """The line; what stands behind it goes to the file."""
    line, size, rest = b"", 0, False
    async for chunk in content:
        if not rest:
            line += chunk
            line, end, chunk = line.partition(b"\n")
            rest = bool(end)
            if len(line) > LINE:
                raise RequestTooLarge(LINE)
        size += len(chunk)
        if size > most:
            raise RequestTooLarge(most)
        await asyncio.to_thread(file.write, chunk)
    return line if rest else b""


def _told(line: bytes) -> Ran:
    try:
        said = json.loads(line)
        code, stopped, printed = said["code"], said["stopped"], said["log"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return Ran(0, "its builder answered with something that is no answer", "")
    if not isinstance(code, int) or not isinstance(stopped, str | None) or not isinstance(printed, str):
        return Ran(0, "its builder answered with something that is no answer", "")
    log = log_of(printed.encode("utf-8", "replace"))
    return Ran(code, log_of(stopped.encode("utf-8", "replace"))[:_CAUSE] if stopped is not None else None, log)
