"""Sdists that are up to no good, on the real sandbox and with the real builder: each ends in a problem that names it
and says why, within the limits, with nothing left behind, and the service goes on serving."""

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import publish, scratch
from tests.support.builders import builder_service, builders, needs_builders, needs_landlock
from tests.support.index import PackageIndex
from tests.support.sandbox import needs_sandbox
from tests.support.sdists import a_sdist, a_tar, a_zip, import_name
from tests.support.service import Service
from tests.support.wheels import core_metadata

MUSL = {"python": "3.12", "platform": "musllinux_1_2_x86_64"}
SECONDS = 6
LIMITS = {
    "LOCKSTEP_SDIST_TIMEOUT": f"{SECONDS}s",
    "LOCKSTEP_SDIST_DISK": str(32 << 20),
    "LOCKSTEP_SDIST_PROCESSES": "32",
    "LOCKSTEP_SDIST_MEMORY": str(512 << 20),
    "LOCKSTEP_REFUSALS_FOR": "0.2s",
}
SECRET = "hunter2-in-the-environment"


in_the_sandbox = pytest.param("sandbox", marks=needs_sandbox)
with_a_builder = pytest.param("builder", marks=[needs_builders, needs_landlock])
only_in_the_sandbox = pytest.mark.parametrize("where", [in_the_sandbox], indirect=True)
"""For what no builder can do otherwise: the steps are the same program, and what they answer is looked at here."""


@pytest.fixture(scope="module", params=[in_the_sandbox, with_a_builder])
def where(request: pytest.FixtureRequest) -> str:
    """Where it is built."""
    return str(request.param)


@pytest.fixture(scope="module")
def service(where: str, index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data = tmp_path_factory.mktemp("service") / "data"
    environment = {**LIMITS, "AWS_SECRET_ACCESS_KEY": SECRET}
    if where == "builder":
        with builder_service(data, index.url, places=["any"], environment=environment) as started:
            yield started
    else:
        with Service(data, index_url=index.url, environment=environment) as started:
            yield started


@pytest.fixture(autouse=True)
def unharmed(service: Service, index: PackageIndex, name: str) -> Iterator[None]:
    """After each: nothing is left of it, and the next in line is served."""
    yield
    assert scratch(service) == []
    assert children(service.pid) + builders(service) == []
    publish(index, f"{name}-next", "1.0")
    assert "lock" in service.resolve(f"{name}-next", target=MUSL).json()


def children(pid: int) -> list[str]:
    """The sandboxes that a process has started and that are still there."""
    return [child for child in started(pid) if b"bwrap" in cmdline(Path(f"/proc/{child}")).split(b"\0")[0]]


def failed(service: Service, name: str, *words: str) -> dict[str, Any]:
    """The problem, which names the package and has these words in its detail."""
    problem: dict[str, Any] = service.resolve(name, target=MUSL).json()
    assert problem.get("type", "").endswith(":build-failed"), problem
    assert (problem["status"], problem["package"], problem["version"]) == (422, name, "1.0")
    for word in (name, *words):
        assert word in problem["detail"], problem
    return problem


def member(name: str, path: str, kind: bytes, target: str = "") -> bytes:
    """An sdist with one member more, of that kind."""
    stem = f"{import_name(name)}-1.0"
    info = tarfile.TarInfo(path.format(stem=stem))
    info.type, info.linkname = kind, target
    return a_tar({f"{stem}/PKG-INFO": core_metadata(name, "1.0"), f"{stem}/setup.py": b""}, [info])


@pytest.mark.parametrize(
    ("path", "kind", "target", "words"),
    [
        ("../outside", tarfile.REGTYPE, "", "outside"),
        ("{stem}/../../outside", tarfile.REGTYPE, "", "outside"),
        ("/etc/outside", tarfile.REGTYPE, "", "outside"),
        ("{stem}/link", tarfile.SYMTYPE, "/etc/shadow", "a link"),
        ("{stem}/hard", tarfile.LNKTYPE, "/etc/shadow", "a link"),
        ("{stem}/device", tarfile.CHRTYPE, "", "a device"),
        ("{stem}/fifo", tarfile.FIFOTYPE, "", "a device"),
        ("other/file", tarfile.REGTYPE, "", "folders at its top"),
    ],
    ids=["dots", "dots-within", "absolute", "symlink", "hard-link", "device", "fifo", "two-tops"],
)
def test_a_tar_that_reaches_out(
    service: Service, index: PackageIndex, name: str, path: str, kind: bytes, target: str, words: str
) -> None:
    index.add(f"{import_name(name)}-1.0.tar.gz", member(name, path, kind, target))
    failed(service, name, words)


def test_a_zip_that_reaches_out(service: Service, index: PackageIndex, name: str) -> None:
    stem = f"{import_name(name)}-1.0"
    index.add(f"{stem}.zip", a_zip({f"{stem}/setup.py": b"", f"{stem}/../../outside": b""}))
    failed(service, name, "outside")


def test_a_file_that_is_no_archive(service: Service, index: PackageIndex, name: str) -> None:
    index.add(f"{import_name(name)}-1.0.tar.gz", os.urandom(5000))
    failed(service, name, "cannot be unpacked")


@pytest.mark.parametrize("kind", ["file", "header", "zip"])
def test_an_archive_that_expands_without_end(service: Service, index: PackageIndex, name: str, kind: str) -> None:
    stem = f"{import_name(name)}-1.0"
    if kind == "zip":
        index.add(f"{stem}.zip", a_zip({f"{stem}/zeros": bytes(200 << 20)}))
    else:
        index.add(f"{stem}.tar.gz", bomb(f"{stem}/zeros", 200 << 20, tarfile.REGTYPE if kind == "file" else b"L"))
    failed(service, name, "expands to more" if kind != "header" else "")


def bomb(path: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.type = size, kind
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.addfile(info, io.BytesIO(bytes(size)))
    return content.getvalue()


def test_an_archive_that_is_large_itself(service: Service, index: PackageIndex, name: str) -> None:
    index.add(f"{import_name(name)}-1.0.tar.gz", bytes(33 << 20))
    failed(service, name, "larger than")


def test_nothing_says_how_it_is_built(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, files={"pyproject.toml": None}))
    failed(service, name, "neither a pyproject.toml nor a setup.py")


@only_in_the_sandbox
@pytest.mark.parametrize(
    ("pyproject", "words"),
    [
        ("[build-system", "pyproject.toml"),
        ("[build-system]\n", "requires"),
        ("[build-system]\nrequires = [1]\n", "requires"),
        ("[build-system]\nrequires = []\nbuild-backend = 1\n", "backend"),
        ('[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["../.."]\n', "backend-path"),
        ('[build-system]\nrequires = ["-r /etc/passwd"]\nbuild-backend = "b"\n', "requirement"),
        ('[build-system]\nrequires = ["a @ file:///etc/passwd"]\nbuild-backend = "b"\n', "requirement"),
        ("a = " + "[" * 5000, "pyproject.toml"),
    ],
)
def test_a_pyproject_that_is_none(service: Service, index: PackageIndex, name: str, pyproject: str, words: str) -> None:
    index.add(*a_sdist(name, files={"pyproject.toml": pyproject}))
    failed(service, name, words)


@only_in_the_sandbox
def test_a_backend_that_is_not_there(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, backend="nowhere.to_be:found"))
    problem = failed(service, name, "nowhere.to_be:found", "No module named")
    assert any("ModuleNotFoundError" in line for line in problem["hints"])


@only_in_the_sandbox
def test_a_backend_that_just_ends(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="os._exit(3)"))
    failed(service, name, "ended with 3")


def test_a_build_that_sleeps_for_ever(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="import time; print('so tired', flush=True); time.sleep(10**6)"))
    problem = failed(service, name, f"within {SECONDS} s")
    assert problem["hints"] == ["so tired"]


def test_a_build_that_outlives_itself(service: Service, index: PackageIndex, name: str) -> None:
    """What a build leaves running, in a session of its own and holding its pipes, ends with it."""
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(10**6)'], "
    index.add(*a_sdist(name, code=code + "start_new_session=True)"))
    assert "lock" in service.resolve(name, target=MUSL).json()
    assert not [path for path in Path("/proc").glob("[0-9]*") if b"time.sleep(10**6)" in cmdline(path)]


def cmdline(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def test_a_build_that_forks_without_end(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="bomb()", more=_BOMB))
    failed(service, name, "within")


def test_a_build_that_takes_all_memory(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="bytearray(4 << 30)"))
    failed(service, name, "MemoryError")


def test_a_build_whose_processes_take_all_memory_together(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="many()", more=_MANY))
    failed(service, name, f"more than {512 << 20} bytes in memory")


@pytest.mark.parametrize("path", ["full", "/tmp/full", "/dev/shm/full", "/full", "/proc/full", "/usr/full"])
def test_a_build_that_fills_the_disk(service: Service, index: PackageIndex, name: str, path: str) -> None:
    index.add(*a_sdist(name, code=f"fill({path!r})", more=_FILL))
    failed(service, name, "Error")


@only_in_the_sandbox
def test_a_build_that_fills_the_disk_with_many_files(service: Service, index: PackageIndex, name: str) -> None:
    fill = (
        "\ndef fill():\n    for number in range(10**9):\n        open(f'/build/{number}', 'wb').write(bytes(1 << 20))\n"
    )
    index.add(*a_sdist(name, code="fill()", more=fill))
    failed(service, name, "No space left")


@pytest.mark.parametrize(("host", "words"), [("127.0.0.1", "refused"), ("192.0.2.1", "unreachable")])
def test_a_build_that_tries_the_network(
    service: Service, index: PackageIndex, name: str, where: str, host: str, words: str
) -> None:
    """In the sandbox, its loopback is another one than ours, and there is nothing else."""
    words = words if where == "sandbox" else "Permission denied"
    code = f"import socket; socket.create_connection(({host!r}, {httpx.URL(service.url).port}), 2)"
    index.add(*a_sdist(name, code=code))
    failed(service, name, words)


@pytest.mark.parametrize("what", ["shadow", "database", "blobs", "pid-1", "another"])
def test_a_build_that_reads_what_is_not_its_own(
    service: Service, index: PackageIndex, name: str, where: str, what: str
) -> None:
    path = {
        "shadow": "/etc/shadow",
        "database": str(service.data / "lockstep.db"),
        "blobs": str(service.data / "blobs"),
        "pid-1": f"/proc/{service.pid}/environ",
        "another": str(next((service.data / "scratch-v1").iterdir())),
    }[what]
    index.add(*a_sdist(name, code=f"print(os.path.isdir({path!r}) and os.listdir({path!r}) or open({path!r}).read())"))
    problem = failed(service, name, "No such file or directory" if where == "sandbox" else "Permission denied")
    assert SECRET not in str(problem)


def test_a_build_has_no_privilege(service: Service, index: PackageIndex, name: str) -> None:
    """No root, no capability and none to be had, no environment of the service."""
    code = (
        "status = dict(line.split(':', 1) for line in open('/proc/self/status')); "
        "print('|'.join([str(os.getuid() > 0), str(os.geteuid() > 0), *(status[key].strip() for key in "
        "('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb', 'NoNewPrivs')), str(os.getgroups()), "
        "' '.join(sorted(os.environ))])); raise RuntimeError('told')"
    )
    index.add(*a_sdist(name, code=code))
    [line] = [line for line in failed(service, name, "told")["hints"] if line.startswith("True|")]
    *told, groups, variables = line.split("|")
    assert told[:2] == ["True"] * 2
    assert told[2:] == ["0" * 16] * 5 + ["1"]
    assert groups in ("[]", f"[{os.getgid()}]")
    assert not [each for each in variables.split() if each.startswith(("AWS_", "LOCKSTEP_"))]


@pytest.mark.parametrize("other", [("elsewhere", "1.0"), (None, "2.0")], ids=["name", "version"])
def test_a_wheel_of_something_else(
    service: Service, index: PackageIndex, name: str, other: tuple[str | None, str]
) -> None:
    stem, version = other[0] or import_name(name), other[1]
    index.add(*a_sdist(name, built_as=(stem, version), files={f"{stem}.py": ""}))
    failed(service, name, f"{stem}-{version}-py3-none-any.whl")


def test_a_wheel_whose_metadata_is_of_something_else(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="global VERSION; OLD = VERSION", more=_LIAR))
    failed(service, name, "METADATA")


_BOMB = """
def bomb():
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""
_MANY = """
def many():
    import time
    for _ in range(12):
        if os.fork() == 0:
            filled = b"x" * (100 << 20)
            time.sleep(10**6)
    time.sleep(10**6)
"""
_FILL = """
def fill(path):
    with open(path, "wb") as file:
        while True:
            file.write(bytes(1 << 20))
"""
_LIAR = """
honest = build_wheel

def build_wheel(folder, *rest):
    global VERSION
    right, VERSION = VERSION, "6.6"
    wheel = honest(folder)
    os.rename(os.path.join(folder, wheel), os.path.join(folder, wheel.replace("6.6", right)))
    return wheel.replace("6.6", right)
"""


@only_in_the_sandbox
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("../../etc/passwd", "there is none"),
        ("link-1.0-py3-none-any.whl", "there is none"),
        ("no-wheel", "there is none"),
        ("junk", "none of a wheel"),
        ("--index-url=x", "there is none"),
    ],
)
def test_a_wheel_that_is_none(service: Service, index: PackageIndex, name: str, answer: str, words: str) -> None:
    lie = "\ndef build_wheel(folder, *rest):\n    os.symlink('/etc/passwd', folder + '/link-1.0-py3-none-any.whl')\n"
    lie += f"    open(folder + '/junk', 'w').write('junk')\n    return {answer!r}\n"
    index.add(*a_sdist(name, more=lie))
    failed(service, name, words)


def test_compiled_code_in_a_wheel_for_any_platform(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code=f"open({import_name(name) + '.py'!r}, 'w').write('\\x7fELF')"))
    failed(service, name, "compiled code")


def test_ten_million_lines(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="any(print(number) for number in range(10**7))"))
    problem = failed(service, name, "printed more than")
    assert len("".join(problem["hints"])) < 20_000


@only_in_the_sandbox
def test_credentials_in_what_it_prints(service: Service, index: PackageIndex, name: str) -> None:
    code = (
        "print('password=hunter2 https://me:hunter2@x.example/?token=hunter2', '\\x1b[2Jclear'); raise RuntimeError(1)"
    )
    index.add(*a_sdist(name, code=code))
    problem = failed(service, name, "RuntimeError")
    assert "hunter2" not in str(problem)
    assert "hunter2" not in service.log()
    assert "\x1b" not in "".join(problem["hints"])


@needs_sandbox
def test_a_service_that_is_killed_takes_its_builds_along(index: PackageIndex, tmp_path: Path, name: str) -> None:
    index.add(*a_sdist(name, code="import time; time.sleep(10**6 + 1)"))
    with Service(tmp_path / "data", index_url=index.url) as service:
        with service.client() as client:
            client.post("/v1/resolve", json={"requirements": name, "target": MUSL, "wait": 0})
        until(lambda: children(service.pid))
        [build] = children(service.pid)
        service.kill()
        until(lambda: not Path(f"/proc/{build}").exists())
        service.start()
        assert scratch(service) == []


def started(pid: int) -> list[str]:
    return [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
