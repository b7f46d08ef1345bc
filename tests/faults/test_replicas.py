"""The loss of a replica under load changes nothing that a caller sees."""

import asyncio
import json
from pathlib import Path

from tests.faults.replicas import replicas, storm
from tests.support.index import PackageIndex


def test_the_leader_is_killed_midway(tmp_path: Path) -> None:
    with PackageIndex() as index, replicas(tmp_path, index) as services:
        outcome = asyncio.run(storm(services, index, "storm", callers=40))
    assert len({json.dumps([answer["lock"], answer["bundle"]], sort_keys=True) for answer in outcome.answers}) == 1
    assert outcome.engine_runs <= 1, "at most the heir's"
    again = [filename for filename, times in outcome.fetches.items() if times > 1]
    assert len(again) <= 4, "what the leader was fetching when it died, and no other"
    assert max(outcome.fetches.values()) <= 2
