"""Tasks and their tokens: who is handed a step, whose answer is taken, and when that ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from resolver.builds import tasks as tasks_module
from resolver.builds.running import Limits, Ran
from resolver.builds.tasks import LINE, Task, Tasks
from resolver.domain.errors import BuilderUnavailable, Busy, RequestTooLarge, Unauthenticated
from resolver.domain.targets import TargetEnvironment

HERE = TargetEnvironment.from_platform("3.12", "musllinux_1_2_x86_64")
LIMITS = Limits(answer=1000)


def fits(_: TargetEnvironment) -> str | None:
    return None


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def told(rest: bytes = b"", **facts: object) -> bytes:
    return json.dumps({"code": 0, "stopped": None, "log": "", **facts}).encode() + b"\n" + rest


def doing(task: Task, folder: Path) -> asyncio.Task[Ran]:
    return asyncio.create_task(task.do(folder / "parcel", folder / "answer", LIMITS))


async def test_a_step_is_handed_out_until_it_is_answered(tmp_path: Path) -> None:
    with Tasks().opened(fits) as task:
        ran = doing(task, tmp_path)
        for _ in range(2):
            step = await task.due(HERE)
            assert step is not None
            assert (step.number, step.parcel) == (1, tmp_path / "parcel")
        line = told(b"{}\nPK\n", code=3, log="hello \x1b[2Jhttps://me:hunter2@x.example")
        await task.answer(1, body(line[:5], line[5:-3], line[-3:]))
        assert await ran == Ran(3, None, "hello [2Jhttps://x.example")
        assert (tmp_path / "answer").read_bytes() == b"{}\nPK\n"

        await task.answer(1, body(told(b"other")))  # whoever did not hear of it says it again, and changes nothing
        assert (tmp_path / "answer").read_bytes() == b"{}\nPK\n"
        ran = doing(task, tmp_path)
        step = await task.due(HERE)
        assert step is not None
        assert step.number == 2
        await task.answer(2, body(told(stopped="it was \x00not done, password=hunter2")))
        assert (await ran).stopped == "it was not done, password=[redacted]"


async def test_an_answer_to_another_step_is_nobodys(tmp_path: Path) -> None:
    with Tasks().opened(fits) as task:
        for number in (0, 1):
            with pytest.raises(Unauthenticated):
                await task.answer(number, body(told()))  # nothing was asked
        ran = doing(task, tmp_path)
        await task.due(HERE)
        for number in (0, 2, 10**4):
            with pytest.raises(Unauthenticated):
                await task.answer(number, body(told()))
        assert not ran.done()
        ran.cancel()


async def test_a_token_is_good_for_one_task_while_it_lasts() -> None:
    tasks = Tasks()
    with tasks.opened(fits) as one, tasks.opened(fits) as two:
        assert one.token != two.token
        assert (tasks.of(one.token), tasks.of(two.token)) == (one, two)
        for wrong in (None, "", one.token[:-1], one.token + "x", "é", "\udce9"):
            with pytest.raises(Unauthenticated):
                tasks.of(wrong)
    for over in (one, two):
        with pytest.raises(Unauthenticated):
            tasks.of(over.token)


async def test_who_waits_at_the_end_hears_of_it(tmp_path: Path) -> None:
    with Tasks().opened(fits) as task:
        waiting = asyncio.create_task(task.due(HERE))
        await asyncio.sleep(0)
    assert await waiting is None
    assert await task.due(HERE) is None
    with pytest.raises(Unauthenticated):
        await task.answer(1, body(told()))


async def test_while_none_is_due_a_builder_asks_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tasks_module, "_STEP_WITHIN", 0.01)
    with Tasks().opened(fits) as task:
        assert not task.begun.is_set()
        with pytest.raises(Busy):
            await task.due(HERE)
        assert task.begun.is_set()
        ran = doing(task, tmp_path)
        assert await task.due(HERE) is not None
        ran.cancel()  # whoever wanted it does not any more
        await asyncio.wait({ran})
        with pytest.raises(Busy):
            await task.due(HERE)


async def test_who_is_none_for_it_ends_it(tmp_path: Path) -> None:
    with Tasks().opened(lambda builder: f"it is {builder}") as task:
        ran = doing(task, tmp_path)
        assert await task.due(HERE) is None
        with pytest.raises(BuilderUnavailable, match="it is cp312-musllinux_1_2_x86_64"):
            await ran
        with pytest.raises(BuilderUnavailable):
            await task.do(tmp_path, tmp_path, LIMITS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"rubbish\n",
        b"[]\n",
        b"{}\n",
        b'{"code": "0", "stopped": null, "log": ""}\n',
        b'{"code": 0, "stopped": 1, "log": ""}\n',
        b'{"code": 0, "stopped": null, "log": []}\n',
        b'{"code": 0, "stopped": null, "log": ""}',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ],
)
async def test_rubbish_ends_the_step(tmp_path: Path, content: bytes) -> None:
    with Tasks().opened(fits) as task:
        ran = doing(task, tmp_path)
        await task.due(HERE)
        await task.answer(1, body(content))
        assert (await ran).stopped == "its builder answered with something that is no answer"


@pytest.mark.parametrize("content", [told(b"x" * 1001), b"x" * (LINE + 1)], ids=["answer", "line"])
async def test_too_much_ends_the_step(tmp_path: Path, content: bytes) -> None:
    with Tasks().opened(fits) as task:
        ran = doing(task, tmp_path)
        await task.due(HERE)
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            yield content
            while True:
                read += 1
                yield b"x" * 1000

        with pytest.raises(RequestTooLarge):
            await task.answer(1, endless())
        assert read <= 1
        assert (await ran).stopped == "its answer is over 1000 bytes"


async def test_an_answer_that_breaks_off_can_be_given_again(tmp_path: Path) -> None:
    with Tasks().opened(fits) as task:
        ran = doing(task, tmp_path)
        await task.due(HERE)

        async def broken() -> AsyncIterator[bytes]:
            yield told(b"half")
            with pytest.raises(Busy):
                await task.answer(1, body(told(b"another")))
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await task.answer(1, broken())
        assert not ran.done()
        await task.answer(1, body(told(b"whole")))
        await ran
        assert (tmp_path / "answer").read_bytes() == b"whole"


async def test_an_answer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tasks_module, "_ANSWER_WITHIN", 0.01)

    async def stuck() -> AsyncIterator[bytes]:
        yield told()
        await asyncio.Event().wait()

    with Tasks().opened(fits) as task:
        ran = doing(task, tmp_path)
        await task.due(HERE)
        with pytest.raises(Busy):
            await task.answer(1, stuck())
        assert not ran.done()
        ran.cancel()
