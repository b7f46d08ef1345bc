"""What a registry has, as it is remembered: asked once, for a short while, and never for longer than a caller has."""

import asyncio
import threading

from resolver.client.errors import NotAllowed, Unavailable
from resolver.client.retries import Passing
from resolver.service.mounting import Published
from storage.content import Digest

DIGEST = Digest.of(b"an image")


class Registry:
    """Answers as it is told, once it is `open`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.answer: bool | Exception = True
        self.asked: list[str] = []
        self.time = 0.0
        self.published = Published(self.ask, lambda: self.time)

    def ask(self, repository: str, digest: Digest) -> bool:
        self.asked.append(repository)
        assert self.open.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_what_is_there_is_asked_again_after_a_minute_and_what_is_not_sooner() -> None:
    registry = Registry()
    for answer, seconds in ((True, 60.0), (False, 10.0), (True, 60.0)):
        registry.answer = answer
        registry.asked.clear()
        for time in (0.0, seconds - 1):
            registry.time += time
            assert await registry.published.has("shop/orders", DIGEST) is answer
        assert len(registry.asked) == 1
        registry.time += 1


async def test_a_failure_is_doubt() -> None:
    failures = (Unavailable("away"), NotAllowed("not you"), Passing(Unavailable("for now")), ZeroDivisionError())
    for failure in failures:
        registry = Registry()
        registry.answer = failure
        assert await registry.published.has("shop/orders", DIGEST) is False


async def test_a_slow_answer_is_for_whoever_comes_next() -> None:
    registry = Registry()
    registry.open.clear()

    async def patient() -> bool:
        async with asyncio.timeout(0.05):
            return await registry.published.has("shop/orders", DIGEST)

    for _ in range(3):
        try:
            await patient()
            raise AssertionError
        except TimeoutError:
            pass
    registry.open.set()
    await registry.published.close()
    assert await registry.published.has("shop/orders", DIGEST)
    assert registry.asked == ["shop/orders"]


async def test_questions_under_way_are_bounded() -> None:
    registry = Registry()
    registry.open.clear()
    asking = [asyncio.create_task(registry.published.has(f"shop/{number}", DIGEST)) for number in range(40)]
    done, pending = await asyncio.wait(asking, timeout=1)
    registry.open.set()
    assert {task.result() for task in done} == {False}
    assert len(pending) == 16
    assert all(await asyncio.gather(*pending))
