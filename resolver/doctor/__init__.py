"""`lockstep doctor`: what operators get wrong, looked at with the service's own settings and by its own ways.

Changes nothing but for a probe in the blob store, which it deletes; makes the data folder where there is none.
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from packaging.utils import canonicalize_name

from resolver.configured import configured_indexes
from resolver.doctor.builders import check_builders
from resolver.doctor.callers import check_callers
from resolver.doctor.findings import Finding, note, wrong
from resolver.doctor.indexes import check_index
from resolver.doctor.machine import check_interpreters, check_memory
from resolver.doctor.stores import check_blobs, check_database, check_scratch, check_shared, check_store_clock
from resolver.doctor.webhook import check_certificate, check_registry
from resolver.domain.redaction import redact
from resolver.settings import Settings
from resolver.telemetry import configure_logging

_SECONDS = 60.0

Check = Callable[[], Awaitable[list[Finding]]]


def examine(settings: Settings, project: str, ca_bundle: Path | None) -> list[Finding]:
    """All that was found, part by part. `project` is one whose page the indexes are asked for."""
    configure_logging(settings.log_format, settings.log_level)
    return asyncio.run(_examined(settings, project, ca_bundle))


async def _examined(settings: Settings, project: str, ca_bundle: Path | None) -> list[Finding]:
    checks: list[tuple[str, Check]] = [
        ("scratch", lambda: check_scratch(settings)),
        ("database", lambda: check_database(settings)),
        ("store", lambda: check_blobs(settings)),
        ("store", lambda: check_shared(settings)),
        ("clock", lambda: check_store_clock(settings)),
        ("interpreters", lambda: check_interpreters(settings)),
        ("memory", lambda: check_memory(settings)),
        ("auth", lambda: check_callers(settings)),
        ("builders", lambda: check_builders(settings)),
        ("webhook", lambda: check_certificate(settings, ca_bundle)),
        ("registry", lambda: check_registry(settings)),
        ("index", lambda: _indexes(settings, project)),
    ]
    found = await asyncio.gather(*(_bounded(name, check) for name, check in checks))
    return [finding for findings in found for finding in findings]


async def _indexes(settings: Settings, project: str) -> list[Finding]:
    if settings.network == "offline":
        return [note("index", "all", "none is asked: `network` is offline", "warm what will be needed beforehand")]
    name, own = canonicalize_name(project), version("lockstep")
    asked = (check_index(index, name, own, settings.index_timeout) for index in configured_indexes(settings))
    return [finding for findings in await asyncio.gather(*asked) for finding in findings]


async def _bounded(name: str, check: Check) -> list[Finding]:
    try:
        async with asyncio.timeout(_SECONDS):
            return await check()
    except TimeoutError:
        return [wrong(name, "all", f"not done within {_SECONDS:g} s", "something on the way stays silent")]
    except Exception as failure:  # noqa: BLE001 - one part that nobody foresaw hides no other; it is told as wrong
        told = f"{type(failure).__name__}: {redact(str(failure))}"
        return [wrong(name, "all", told, "a fault of Lockstep: report it")]
