"""Operations, as whoever follows one sees it."""

import asyncio
from pathlib import Path

from resolver.service.operations import Done, Operations, Outcome, Running
from resolver.service.progress import Progress
from storage.metadata.store import SqlMetadataStore


async def test_progress_is_told_as_it_is_not_as_it_was_written_last(tmp_path: Path) -> None:
    metadata = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
    operations = Operations(metadata.operations, limit=1)
    step, stepped, end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(progress: Progress) -> Outcome:
        progress.enter("warming", total=2)
        await step.wait()
        progress.step()
        stepped.set()
        await end.wait()
        return Done({"hot": True})

    running = await operations.run("warm", work, 0.05)
    assert isinstance(running, Running)
    assert running.kind == "warm"
    assert (await operations.get(running.id)).progress == {"stage": "warming", "done": 0, "total": 2}
    step.set()
    await stepped.wait()
    assert (await operations.get(running.id)).progress == {"stage": "warming", "done": 1, "total": 2}
    end.set()
    while (record := await operations.get(running.id)).state == "running":
        await asyncio.sleep(0.01)
    assert record.result == {"hot": True}
    await operations.close(1)
    await metadata.close()
