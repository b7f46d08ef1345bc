import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import uvloop

from resolver.domain.errors import EngineFailed, TimedOut
from resolver.engines.process import Completed, run, scratch
from tests.unit.engines.conftest import Leftovers

MEBIBYTE = 1024**2


async def start(
    argv: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = 60,
    memory: int = 1024 * MEBIBYTE,
    output_limit: int = MEBIBYTE,
) -> Completed:
    async with scratch() as folder:
        return await run(
            argv,
            engine="engine",
            env=env or {},
            cwd=folder,
            timeout=timeout,
            memory=memory,
            output_limit=output_limit,
            stdin=stdin,
        )


async def test_gives_what_was_printed_and_how_it_ended(leftovers: Leftovers) -> None:
    completed = await start(["sh", "-c", "cat; echo wrong >&2; exit 3"], stdin=b"in\n")
    assert completed == Completed(3, b"in\n", b"wrong\n")
    leftovers.assert_none()


async def test_a_large_input_that_nobody_reads_is_no_error() -> None:
    assert await start(["true"], stdin=b"x" * MEBIBYTE) == Completed(0, b"", b"")


async def test_the_environment_is_the_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", "/ca.pem")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("PIP_INDEX_URL", "http://elsewhere.example.com")
    completed = await start(["env"], env={"UV_CACHE_DIR": "/cache"})
    environment = dict(line.split("=", 1) for line in completed.stdout.decode().splitlines())
    home = environment["HOME"]
    assert environment == {
        "PATH": "/usr/bin:/bin",
        "HTTP_PROXY": "http://proxy.example.com",
        "SSL_CERT_FILE": "/ca.pem",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "UV_CACHE_DIR": "/cache",
    }
    assert not Path(home).exists()


async def test_at_the_time_limit_the_whole_group_is_killed(leftovers: Leftovers) -> None:
    with pytest.raises(TimedOut) as raised:
        await start(["sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.5)
    assert (raised.value.what, raised.value.seconds) == ("engine", 0.5)
    leftovers.assert_none()


async def test_what_the_process_started_ends_with_it(leftovers: Leftovers) -> None:
    completed = await start(["sh", "-c", "sleep 1000 >/dev/null 2>&1 </dev/null & echo done"])
    assert completed.stdout == b"done\n"
    leftovers.assert_none()


async def test_a_cancelled_caller_leaves_nothing_behind(leftovers: Leftovers) -> None:
    task = asyncio.create_task(start(["sh", "-c", "sleep 1000 & sleep 1000"]))
    async with asyncio.timeout(30):
        while len(leftovers.processes()) < 3:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    leftovers.assert_none()


async def test_a_caller_cancelled_at_any_moment_leaves_nothing_behind(leftovers: Leftovers) -> None:
    for turns in range(12):  # turns of the event loop: before the spawn, in the midst of it, after it
        task = asyncio.create_task(start(["sh", "-c", "sleep 1000 & sleep 1000"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns > 6:
            async with asyncio.timeout(30):
                while not leftovers.processes():
                    await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leftovers.assert_none()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_output_without_end_is_cut_off(leftovers: Leftovers, stream: str) -> None:
    endless = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    with pytest.raises(EngineFailed, match="printed more than 100000 bytes"):
        await start([sys.executable, "-c", endless], output_limit=100_000)
    leftovers.assert_none()


async def test_memory_is_bounded(leftovers: Leftovers) -> None:
    greedy = "import time; time.sleep(0.2); bytearray(2_000_000_000)"
    completed = await start([sys.executable, "-c", greedy])
    assert completed.returncode == 1
    assert b"MemoryError" in completed.stderr
    leftovers.assert_none()


async def test_a_program_that_is_not_there(leftovers: Leftovers) -> None:
    with pytest.raises(EngineFailed, match="could not be started"):
        await start(["/nowhere/engine"])
    leftovers.assert_none()


async def test_errors_show_no_credential() -> None:
    with pytest.raises(EngineFailed) as raised:
        await start(["sh", "-c", "yes https://user:hunter2@packages.example.com/simple >&2"], output_limit=100_000)
    assert "packages.example.com" in raised.value.output
    assert "hunter2" not in raised.value.output


def test_on_the_event_loop_of_the_service(leftovers: Leftovers) -> None:
    async def all_ends() -> None:
        assert (await start(["cat"], stdin=b"in")).stdout == b"in"
        with pytest.raises(TimedOut):
            await start(["sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.5)
        with pytest.raises(EngineFailed):
            await start(["yes"], output_limit=100_000)

    uvloop.run(all_ends())
    leftovers.assert_none()
