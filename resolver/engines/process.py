"""Runs an engine: a fixed argv, an allow-listed environment, a limit on time, memory and output, nothing left behind.

Every run is the leader of a session of its own, so that whatever it started can be killed with it.
"""

import asyncio
import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from resolver.domain.errors import EngineFailed, TimedOut
from resolver.domain.redaction import redact
from resolver.engines import leash
from resolver.scratch import needing_room
from storage.errors import StorageFull

_INHERITED = ("PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_CHUNK = 64 * 1024
_NO_ROOM = os.strerror(errno.ENOSPC).encode()
_SHOWN = 4000  # characters of output that an error carries


@dataclass(frozen=True, slots=True)
class Completed:
    """How a process ended by itself, and what it printed."""

    returncode: int
    stdout: bytes
    stderr: bytes


@asynccontextmanager
async def scratch(parent: Path | None = None) -> AsyncIterator[Path]:
    """A folder for one run, removed with all that is in it. In `parent`, where a service that is killed finds what it
    left there; else where the system keeps temporary files.

    Raises:
        StorageFull: there is no room for it, or for what is written within the context.
    """
    # Not cancelled with the caller: a thread goes on regardless, and what it makes must be known to be removed.
    making = asyncio.ensure_future(
        asyncio.to_thread(tempfile.TemporaryDirectory, prefix="lockstep-engine-", dir=parent)
    )
    try:
        with needing_room("an engine's files"):
            yield Path((await asyncio.shield(making)).name)
    finally:
        await asyncio.wait({making})
        if making.exception() is None:
            await asyncio.shield(asyncio.to_thread(making.result().cleanup))


async def run(
    argv: Sequence[str | Path],
    *,
    engine: str,
    env: Mapping[str, str],
    cwd: Path,
    timeout: float,  # noqa: ASYNC109 - the limit is the process's, whose group must be killed at its end
    memory: int,
    output_limit: int,
    stdin: bytes = b"",
) -> Completed:
    """Run a program to its end in the folder `cwd`, its home and place for temporary files.

    The environment holds PATH, proxies and CA files of this process, as far as they are set, and `env`; nothing else.
    `timeout` is in seconds; `memory` (address space) and `output_limit` (of stdout and of stderr) are in bytes. When
    this returns, raises or is cancelled, the process is reaped and its group killed. `engine` is the name in errors.

    Raises:
        TimedOut: the time was up.
        EngineFailed: it could not be started, or printed too much.
        StorageFull: it says that it had no room for what it writes.
    """
    over = asyncio.Event()
    life = asyncio.ensure_future(_live(argv, _environment(cwd) | dict(env), cwd, memory, stdin, output_limit, over))
    try:
        async with asyncio.timeout(timeout):
            # Shielded, the spawn too: asyncio loses a process whose spawn is cancelled halfway, with its children.
            completed = await asyncio.shield(life)
    except TimeoutError:
        raise TimedOut(engine, timeout) from None
    except OSError as error:
        raise EngineFailed(engine, f"it could not be started ({error.strerror})", "") from error
    finally:
        over.set()
        await asyncio.wait({life})
    if max(len(completed.stdout), len(completed.stderr)) > output_limit:
        raise EngineFailed(engine, f"it printed more than {output_limit} bytes", shown(completed.stderr))
    if completed.returncode != 0 and _NO_ROOM in completed.stderr:
        raise StorageFull(f"no room left for what {engine} writes")
    return completed


def shown(output: bytes) -> str:
    """The end of an output, redacted: what an error may carry."""
    return redact(output.decode(errors="replace"))[-_SHOWN:]


def _environment(cwd: Path) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {"PATH": os.defpath, **inherited, "HOME": str(cwd), "TMPDIR": str(cwd), "LANG": "C.UTF-8"}


def _limit_memory(pid: int, memory: int) -> None:
    # From outside, as code between fork and exec is not safe in a process with threads. One that ended at once is gone.
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))


async def _live(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    cwd: Path,
    memory: int,
    stdin: bytes,
    output_limit: int,
    over: asyncio.Event,
) -> Completed:
    """Start, attend, kill the group: at once when it is `over`, or what is left of it when the process has ended."""
    if shutil.which(argv[0], path=env["PATH"]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(argv[0]))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid())),
        *argv,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    _limit_memory(process.pid, memory)
    ended = asyncio.ensure_future(_attend(process, stdin, output_limit, over))
    killed = asyncio.ensure_future(over.wait())
    await asyncio.wait({ended, killed}, return_when=asyncio.FIRST_COMPLETED)
    killed.cancel()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return await ended


async def _attend(
    process: asyncio.subprocess.Process, stdin: bytes, output_limit: int, over: asyncio.Event
) -> Completed:
    """Feed, drain and reap. Ends when the process has ended and nobody holds its pipes any more."""
    assert process.stdin is not None  # noqa: S101 - asked for as pipes above
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    _, stdout, stderr = await asyncio.gather(
        _feed(process.stdin, stdin),
        _drain(process.stdout, output_limit, over),
        _drain(process.stderr, output_limit, over),
    )
    return Completed(await process.wait(), stdout, stderr)


async def _feed(stream: asyncio.StreamWriter, content: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it may end without having read all
        if not stream.is_closing():  # nor any of it: uvloop has closed the pipe by then, and minds being written to
            stream.write(content)
            await stream.drain()
    stream.close()


async def _drain(stream: asyncio.StreamReader, limit: int, over: asyncio.Event) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(_CHUNK):
        # Read on after the kill: a pipe that nobody drains keeps its process from being reaped.
        if len(kept) <= limit:
            kept += chunk
        if len(kept) > limit:
            over.set()
    return bytes(kept)
