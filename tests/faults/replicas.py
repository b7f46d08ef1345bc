"""Three service processes on one PostgreSQL and one S3 store, the leader killed midway.

    python -m tests.faults.replicas --callers 200

Callers spread over the processes and retry as `fetch` does. In the end: one lock, one bundle, all answers equal, none
failed, and no wheel fetched more than once, but for the one that was being fetched when the leader died.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer
from tests.support.s3 import moto
from tests.support.service import Service
from tests.support.wheels import make_wheel

WHEELS = 12
PATIENCE = 300.0


@dataclass(frozen=True)
class Outcome:
    """What came of it. `fetches` counts requests for each wheel."""

    answers: list[dict[str, Any]]
    fetches: Counter[str]
    engine_runs: float
    takeovers: float


@contextlib.contextmanager
def replicas(
    folder: Path, index: PackageIndex, count: int = 3, make: Callable[..., Service] = Service
) -> Iterator[list[Service]]:
    """Service processes that share their stores; each has a folder of its own for work under way. `make` makes one."""
    with PostgresServer() as postgres, moto() as s3, postgres.database() as database, contextlib.ExitStack() as stack:
        environment = {
            **s3.environment,
            "LOCKSTEP_DATABASE_URL": postgres.url(database),
            "LOCKSTEP_BLOB_URL": s3.url(),
            "LOCKSTEP_INDEX_TIMEOUT": "5s",
        }
        yield [
            stack.enter_context(make(folder / f"replica-{number}", index_url=index.url, environment=environment))
            for number in range(count)
        ]


def publish(index: PackageIndex, name: str) -> list[str]:
    """A package with dependencies of some size; returns the wheels' filenames."""
    filenames = []
    for number in range(WHEELS):
        module = f"{name}_{number}"
        files: dict[str, str | bytes] = {f"{module}/__init__.py": "", f"{module}/data.bin": bytes(200_000 + number)}
        filename, content = make_wheel(f"{name}-{number}", "1.0", files=files)
        index.add(filename, content)
        filenames.append(filename)
    filename, content = make_wheel(name, "1.0", requires=[f"{name}-{number}" for number in range(WHEELS)])
    index.add(filename, content)
    return [*filenames, filename]


async def ask(services: Sequence[Service], number: int, name: str) -> dict[str, Any]:
    """One caller: retries what may pass, at whichever process answers, as a Pod behind a Service does."""
    body = {
        "requirements": name,
        "target": {"python": "3.12", "platform": "manylinux_2_28_x86_64"},
        "workload": {"namespace": "shop", "name": name, "revision": "r1"},
        "wait": 20,
    }
    deadline, turn = time.monotonic() + PATIENCE, number
    async with httpx.AsyncClient(timeout=60) as client:
        while time.monotonic() < deadline:
            url, turn = services[turn % len(services)].url, turn + 1
            try:
                answer = await client.post(f"{url}/v1/resolve", json=body)
                while answer.status_code == 202:
                    await asyncio.sleep(0.2)
                    answer = await client.get(url + answer.headers["Location"])
            except httpx.TransportError:
                await asyncio.sleep(0.2)
                continue
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            if not answer.json()["retryable"]:
                raise AssertionError(answer.text)
            await asyncio.sleep(0.2)
    raise AssertionError(f"caller {number} had no answer within {PATIENCE:g} s")


async def leader_of(services: Sequence[Service], index: PackageIndex) -> Service:
    """The process that fetches wheels, found once it has begun to."""
    while True:
        for service in services:
            async with httpx.AsyncClient() as client:
                metrics = (await client.get(f"{service.url}/metrics")).text
            resolved = metric(metrics, 'lockstep_resolve_seconds_count{engine="uv"}')
            if resolved and metric(metrics, "lockstep_single_flight_waiters") and index.count(".whl") > 2:
                return service
        await asyncio.sleep(0.02)


def metric(text: str, name: str) -> float:
    """A sample of /metrics."""
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


async def storm(services: Sequence[Service], index: PackageIndex, name: str, callers: int) -> Outcome:
    """All callers at once; the leader killed as soon as it is known."""
    wheels = publish(index, name)
    for filename in wheels[:4]:
        index.fault(f"/{filename}$", "slow", times=1)
    asking = [asyncio.create_task(ask(services, number, name)) for number in range(callers)]
    leader = await asyncio.wait_for(leader_of(services, index), PATIENCE)
    leader.kill()
    answers = await asyncio.gather(*asking)
    alive = [service for service in services if service is not leader]
    texts = [service.metrics() for service in alive]
    return Outcome(
        answers=answers,
        fetches=Counter({filename: _fetches(index, filename) for filename in wheels}),
        engine_runs=sum(metric(text, 'lockstep_resolve_seconds_count{engine="uv"}') for text in texts),
        takeovers=sum(metric(text, "lockstep_lease_takeovers_total") for text in texts),
    )


def _fetches(index: PackageIndex, filename: str) -> int:
    return sum(path.partition("?")[0].endswith(f"/{filename}") for path in list(index.requests))


def main(arguments: Sequence[str]) -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=200)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, PackageIndex() as index, replicas(Path(name), index) as services:
        started = time.monotonic()
        outcome = asyncio.run(storm(services, index, "storm", options.callers))
        equal = len({json.dumps([a["lock"], a["bundle"]], sort_keys=True) for a in outcome.answers})
        print(
            f"{len(outcome.answers)} answers in {time.monotonic() - started:.1f} s, {equal} different; "
            f"engine runs after the kill: {outcome.engine_runs:g}; leases taken over: {outcome.takeovers:g}; "
            f"fetches of a wheel: {dict(sorted(Counter(outcome.fetches.values()).items()))}"
        )
        return 0 if equal == 1 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
