"""What is made ready beforehand, and what becomes of the rest where a part of it cannot be."""

from structlog.testing import capture_logs

from resolver.warm_up import warm_up
from storage.errors import StorageUnavailable


async def test_a_part_that_cannot_be_made_ready_is_told_and_keeps_no_other_from_it() -> None:
    ready = []

    async def away() -> None:
        raise StorageUnavailable("the database does not answer: 57P03")

    async def here() -> None:
        ready.append("engine")

    with capture_logs() as told:
        await warm_up({"database": away, "engine": here})
    assert ready == ["engine"]
    assert told == [
        {
            "event": "service.not-warm",
            "log_level": "warning",
            "part": "database",
            "cause": "the database does not answer: 57P03",
        }
    ]
