"""What this machine, or this container, has: interpreters and memory."""

import asyncio
import os
from pathlib import Path

from resolver.client.console import size
from resolver.doctor.findings import Finding, note, well, wrong
from resolver.domain.targets import PYTHONS
from resolver.engines.interpreters import UnusableInterpreter, discover
from resolver.settings import Settings

_BASE = 512 << 20
_PER_BUILD = 256 << 20
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


async def check_interpreters(settings: Settings) -> list[Finding]:
    """One for each minor version, for byte-code; the pip engine locks for no other."""
    try:
        found = await discover(os.environ.get("PATH", os.defpath), settings.interpreters)
    except UnusableInterpreter as failure:
        way_out = (
            "`interpreters` names what runs, as 3.12=/usr/bin/python3.12; or leave it out: those on PATH are found"
        )
        return [wrong("interpreters", "settings", str(failure), way_out)]
    missing = [python for python in PYTHONS if python not in found]
    findings = [
        well("interpreters", python, f"{interpreter.version}, {interpreter.path}")
        for python, interpreter in found.items()
    ]
    if not found:
        way_out = "the service image has them; elsewhere install python3.X, or name them in `interpreters`"
        return [wrong("interpreters", "all", "none runs: no bundle has byte-code, and pip can lock nothing", way_out)]
    if missing:
        told = "none: bundles have no byte-code, so every start compiles what it imports"
        if settings.engine == "pip":
            told += "; pip locks nothing for them"
        way_out = "where nothing runs on them, none; else the image's build arguments PYTHON_3_X, or `interpreters`"
        findings.append(note("interpreters", ", ".join(missing), told, way_out))
    return findings


async def check_memory(settings: Settings) -> list[Finding]:
    """The limit of this container, or the machine's memory, beside what builds at once take."""
    memory = await asyncio.to_thread(_memory)
    wanted = _BASE + settings.parallel_builds * _PER_BUILD
    told = f"{size(memory)}, for {settings.parallel_builds} builds at once"
    if memory >= wanted:
        return [well("memory", "limit", told)]
    way_out = f"{size(wanted)} or more (resources.limits.memory), or fewer `parallel_builds`"
    return [(wrong if memory < _BASE else note)("memory", "limit", told, way_out)]


def _memory() -> int:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path(path).read_text().strip() for path in _LIMITS if Path(path).exists()]
    return min([whole, *(int(limit) for limit in limits if limit.isdecimal())])
