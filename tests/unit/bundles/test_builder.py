"""The builder as a whole: real worker processes, and what becomes of them and their work."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from resolver.bundles.builder import ProcessLayerBuilder
from resolver.domain.errors import Busy, InvalidWheel, LayerBuildFailed, TimedOut
from resolver.domain.ports import LayerBuilder
from storage.errors import StorageFull
from tests.support.wheels import make_wheel
from tests.unit.bundles.support import (
    DEMO,
    MINOR,
    Python,
    extract,
    files_of,
    many_modules,
    path_with,
    put,
    raw_wheel,
    this_python,
)

MakeBuilder = Callable[..., ProcessLayerBuilder]
SMALL = make_wheel("small", "1.0", files={"small/__init__.py": "x = 1\n", "small.pth": "import os\n"})
BIG = make_wheel("big", "1.0", files=many_modules(1200), entry_points="[console_scripts]\nbig = big:main\n")


@pytest.fixture
async def make_builder() -> AsyncIterator[MakeBuilder]:
    builders: list[ProcessLayerBuilder] = []

    def make(
        python: Python | None = None, *, workers: int = 2, compilers: int = 2, timeout: float = 300
    ) -> ProcessLayerBuilder:
        interpreters = {} if python is None else {MINOR: python}
        builders.append(ProcessLayerBuilder(interpreters, workers=workers, compilers=compilers, timeout=timeout))
        return builders[-1]

    yield make
    for builder in builders:
        await builder.close()


def workers_here() -> list[int]:
    """The worker processes of this process."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and b"resolver.bundles.worker" in (process / "cmdline").read_bytes():
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                found += [int(process.name)] if parent == os.getpid() else []
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    return found


def folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir(parents=True)
    return parent / name


def program(path: Path, text: str) -> Python:
    """An `interpreter` that is a shell script: it does what a real one does only when something goes wrong."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Python(path, this_python().version, this_python().magic)


def stuck(tmp_path: Path) -> Python:
    return program(tmp_path / "stuck", f"echo $$ $PPID >> {tmp_path}/pids\nexec sleep 600")


async def pids_of_stuck(tmp_path: Path) -> list[int]:
    """The compiler's process and its worker's, once they are there."""
    async with asyncio.timeout(60):
        while True:
            text = (tmp_path / "pids").read_text() if (tmp_path / "pids").exists() else ""
            if text.endswith("\n"):
                return [int(pid) for pid in text.split()]
            await asyncio.sleep(0.02)


async def gone(pids: list[int]) -> None:
    """Waits until none of these processes runs (an orphan may stay a zombie until init looks)."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    async with asyncio.timeout(30):
        while any(runs(pid) for pid in pids):
            await asyncio.sleep(0.02)


def as_port(builder: ProcessLayerBuilder) -> LayerBuilder:
    return builder


async def test_layer_is_the_installed_compiled_tree(make_builder: MakeBuilder, tmp_path: Path) -> None:
    builder = as_port(make_builder(this_python()))
    work = folder(tmp_path, "work")
    layer = await builder.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, work)
    assert layer.path.parent == work
    assert list(work.iterdir()) == [layer.path]
    files = files_of(extract(layer.path, tmp_path / "out"))
    assert layer.listing.keys() == files.keys()
    cached = f"site-packages/small/__pycache__/__init__.cpython-{MINOR.replace('.', '')}.pyc"
    assert {cached, "site-packages/small/__init__.py", "site-packages/small.pth"} <= files.keys()
    assert (layer.has_pth, layer.has_bytecode) == (True, True)


async def test_without_an_interpreter_there_is_no_bytecode(make_builder: MakeBuilder, tmp_path: Path) -> None:
    without, with_one = make_builder(), make_builder(this_python())
    layer = await without.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, tmp_path)
    assert not layer.has_bytecode
    assert not [path for path in layer.listing if path.endswith(".pyc")]
    assert (without.has_interpreter(MINOR), with_one.has_interpreter(MINOR)) == (False, True)
    assert without.toolchain(MINOR) != with_one.toolchain(MINOR)
    assert with_one.toolchain(MINOR) == make_builder(this_python()).toolchain(MINOR)


def test_toolchain_knows_the_interpreter_exactly() -> None:
    def toolchain(version: str, magic: str) -> str:
        return ProcessLayerBuilder({"3.12": Python(Path("/p"), version, magic)}).toolchain("3.12")

    assert len({toolchain("3.12.1", "aa"), toolchain("3.12.2", "aa"), toolchain("3.12.1", "bb")}) == 3


async def test_big_wheel_is_the_same_layer_in_every_builder_and_folder(
    make_builder: MakeBuilder, tmp_path: Path
) -> None:
    wheel = put(tmp_path / "store", BIG)
    digests = set()
    for number in range(4):
        builder = make_builder(this_python(), workers=1 + number % 2, compilers=1 + number % 3)
        folders = [folder(tmp_path, f"{'deeper/' * number}work{number}-{half}") for half in "ab"]
        layers = await asyncio.gather(*(builder.build(wheel, BIG[0], MINOR, each) for each in folders))
        digests |= {(layer.digest, layer.diff_id) for layer in layers}
        assert sum(path.endswith(".pyc") for path in layers[0].listing) == 1200
        await builder.close()
    assert len(digests) == 1


async def test_invalid_wheel_is_said_and_leaves_nothing(make_builder: MakeBuilder, tmp_path: Path) -> None:
    builder = make_builder(this_python(), workers=1)
    work = folder(tmp_path, "work")
    bad = put(tmp_path / "store", (DEMO, raw_wheel(("../evil", b""))))
    with pytest.raises(InvalidWheel, match="parts") as caught:
        await builder.build(bad, DEMO, MINOR, work)
    assert caught.value.file == DEMO
    assert list(work.iterdir()) == []
    layer = await builder.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, work)
    assert list(work.iterdir()) == [layer.path]


async def test_more_builds_than_workers_wait_for_one(make_builder: MakeBuilder, tmp_path: Path) -> None:
    builder = make_builder(workers=1)
    wheel = put(tmp_path / "store", SMALL)
    layers = await asyncio.gather(*(builder.build(wheel, SMALL[0], MINOR, tmp_path) for _ in range(6)))
    assert len({layer.path for layer in layers}) == 6
    assert len({layer.digest for layer in layers}) == 1


async def test_pth_hook_is_a_layer_that_makes_pth_files_work(make_builder: MakeBuilder, tmp_path: Path) -> None:
    builder = make_builder(this_python())
    tree = tmp_path / "bundle"
    wheel = put(tmp_path / "store", SMALL)
    for layer in (await builder.build(wheel, SMALL[0], MINOR, tmp_path), await builder.build_pth_hook(MINOR, tmp_path)):
        extract(layer.path, tree)
    assert not layer.has_pth
    cached = f"site-packages/__pycache__/sitecustomize.cpython-{MINOR.replace('.', '')}.pyc"
    assert layer.listing.keys() == {"site-packages/sitecustomize.py", cached}
    (tree / "site-packages/small.pth").write_text("import builtins; builtins.ran = 'once'\n")
    done = subprocess.run(
        [f"python{MINOR}", "-c", "import builtins; print(builtins.ran)"],
        env={"PATH": path_with(tmp_path / "path", this_python()), "PYTHONPATH": str(tree / "site-packages")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("once\n", "")


class TestEndings:
    """However a build ends, no process and no file of it stays."""

    async def test_time_out(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        builder = make_builder(stuck(tmp_path), workers=1, timeout=3)
        work = folder(tmp_path, "work")
        wheel = put(tmp_path / "store", SMALL)
        # The worker has started when the time that counts begins.
        (await builder.build(wheel, SMALL[0], "3.99", work)).path.unlink()
        with pytest.raises(TimedOut):
            await builder.build(wheel, SMALL[0], MINOR, work)
        pids = await pids_of_stuck(tmp_path)
        await gone(pids)
        assert list(work.iterdir()) == []

    async def test_cancelled(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        builder = make_builder(stuck(tmp_path))
        work = folder(tmp_path, "work")
        build = asyncio.create_task(builder.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, work))
        pids = await pids_of_stuck(tmp_path)
        assert list(work.iterdir()) != []
        build.cancel()
        with pytest.raises(asyncio.CancelledError):
            await build
        await gone(pids)
        assert list(work.iterdir()) == []

    async def test_ending_one_build_leaves_the_others_alone(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        slow_once = program(
            tmp_path / "slow_once",
            f"if mkdir {tmp_path}/first 2>/dev/null; then echo $$ $PPID >> {tmp_path}/pids; exec sleep 600; fi\n"
            f'sleep 0.5; exec {this_python().path} "$@"',
        )
        builder = make_builder(slow_once, workers=2)
        wheel = put(tmp_path / "store", SMALL)
        first = asyncio.create_task(builder.build(wheel, SMALL[0], MINOR, folder(tmp_path, "one")))
        await pids_of_stuck(tmp_path)
        second = asyncio.create_task(builder.build(wheel, SMALL[0], MINOR, folder(tmp_path, "two")))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).has_bytecode
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_worker_killed_once_is_made_good(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        python = program(
            tmp_path / "python",
            f'if mkdir {tmp_path}/first 2>/dev/null; then kill -9 $PPID; sleep 600; fi\nexec {this_python().path} "$@"',
        )
        builder = make_builder(python, workers=1)
        work = folder(tmp_path, "work")
        layer = await builder.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, work)
        assert (tmp_path / "first").exists()
        assert list(work.iterdir()) == [layer.path]
        good = await make_builder(this_python()).build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, tmp_path)
        assert layer.digest == good.digest

    async def test_worker_killed_twice_is_an_error_and_the_next_build_works(
        self, make_builder: MakeBuilder, tmp_path: Path
    ) -> None:
        deadly = program(tmp_path / "deadly", f"echo $$ >> {tmp_path}/pids\nkill -9 $PPID\nexec sleep 600")
        builder = make_builder(deadly, workers=1)
        work = folder(tmp_path, "work")
        with pytest.raises(LayerBuildFailed, match="status -9"):
            await builder.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, work)
        compilers = await pids_of_stuck(tmp_path)
        assert len(compilers) == 2
        await gone(compilers)
        assert list(work.iterdir()) == []
        layer = await builder.build(put(tmp_path / "store", SMALL), SMALL[0], "3.99", work)
        assert not layer.has_bytecode

    async def test_idle_worker_killed_is_replaced(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        python = program(tmp_path / "python", f'echo $PPID >> {tmp_path}/pids\nexec {this_python().path} "$@"')
        builder = make_builder(python, workers=1)
        wheel = put(tmp_path / "store", SMALL)
        first = await builder.build(wheel, SMALL[0], MINOR, tmp_path)
        (worker,) = await pids_of_stuck(tmp_path)
        os.kill(worker, signal.SIGKILL)
        assert (await builder.build(wheel, SMALL[0], MINOR, tmp_path)).digest == first.digest
        assert len(set(await pids_of_stuck(tmp_path))) == 2

    async def test_jobs_that_come_while_workers_start_get_these(
        self, make_builder: MakeBuilder, tmp_path: Path
    ) -> None:
        builder = make_builder(workers=2)
        wheel = put(tmp_path / "store", SMALL)
        builder.start()
        works = [folder(tmp_path, f"work-{number}") for number in range(4)]
        layers = await asyncio.gather(*(builder.build(wheel, SMALL[0], MINOR, work) for work in works))
        assert len({layer.digest for layer in layers}) == 1
        assert len(workers_here()) == 2
        await builder.close()
        assert workers_here() == []

    async def test_failing_interpreter(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        builder = make_builder(program(tmp_path / "broken", "echo 'no libpython' >&2; exit 127"))
        work = folder(tmp_path, "work")
        with pytest.raises(LayerBuildFailed, match="status 127: no libpython"):
            await builder.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, work)
        assert list(work.iterdir()) == []

    async def test_close(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        builder = make_builder(stuck(tmp_path))
        work = folder(tmp_path, "work")
        build = asyncio.create_task(builder.build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, work))
        pids = await pids_of_stuck(tmp_path)
        await builder.close()
        with pytest.raises(Busy):
            await build
        await gone(pids)
        assert list(work.iterdir()) == []

    async def test_service_killed(self, tmp_path: Path) -> None:
        script = (
            "import asyncio, sys\nfrom pathlib import Path\n"
            "from resolver.bundles.builder import ProcessLayerBuilder\n"
            "from tests.unit.bundles.support import Python\n"
            "wheel, name, python, minor, work = sys.argv[1:]\n"
            "async def main():\n"
            "    builder = ProcessLayerBuilder({minor: Python(Path(python), '3.0.0', '00')}, workers=2)\n"
            "    await builder.build(Path(wheel), name, '3.99', Path(work))\n"
            "    await builder.build(Path(wheel), name, minor, Path(work))\n"
            "asyncio.run(main())\n"
        )
        wheel = put(tmp_path / "store", SMALL)
        root = Path(__file__).parents[3]
        service = subprocess.Popen(
            [sys.executable, "-c", script, wheel, SMALL[0], stuck(tmp_path).path, MINOR, folder(tmp_path, "work")],
            cwd=root,
        )
        try:
            pids = await pids_of_stuck(tmp_path)
        finally:
            service.kill()
            service.wait()
        await gone(pids)

    async def test_full_disk_is_a_full_store(self, make_builder: MakeBuilder, tmp_path: Path) -> None:
        small = folder(tmp_path, "small")
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=False, capture_output=True
        )
        if mounted.returncode != 0:
            pytest.skip("may not mount a file system here")
        try:
            content = raw_wheel(("demo/blob", os.urandom(1 << 20)))
            with pytest.raises(StorageFull):
                await make_builder().build(put(tmp_path / "store", (DEMO, content)), DEMO, MINOR, small)
            assert list(small.iterdir()) == []
        finally:
            subprocess.run(["umount", small], check=True)


async def test_worker_gets_no_credential(
    make_builder: MakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    python = program(
        tmp_path / "python",
        f"cat /proc/$PPID/environ /proc/$PPID/cmdline > {tmp_path}/seen; env >> {tmp_path}/seen\n"
        f'exec {this_python().path} "$@"',
    )
    await make_builder(python).build(put(tmp_path / "store", SMALL), SMALL[0], MINOR, tmp_path)
    seen = (tmp_path / "seen").read_bytes()
    assert b"PYTHONHASHSEED=0" in seen
    assert b"planted" not in seen


async def test_event_loop_goes_on_while_layers_are_built(make_builder: MakeBuilder, tmp_path: Path) -> None:
    builder = make_builder(this_python())
    build = asyncio.create_task(builder.build(put(tmp_path / "store", BIG), BIG[0], MINOR, tmp_path))
    turns = 0
    start = time.monotonic()
    while not build.done() and time.monotonic() - start < 300:
        await asyncio.sleep(0)
        turns += 1
    assert (await build).has_bytecode
    assert turns > 100
