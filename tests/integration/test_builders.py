"""Source distributions built by builders elsewhere: the real program, each started for one of them."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from resolver.builds.inside import landlock
from resolver.client.environment import libc
from tests.integration.conftest import publish, scratch
from tests.integration.test_builds import COMPILER, HERE, INTERPRETER, MUSL, NATIVE, THIS_CLASS, detail
from tests.support.builders import AWAY, PYTHON, builder_service, builders, needs_builders, needs_landlock, reachable
from tests.support.index import PackageIndex
from tests.support.interpreters import THIS
from tests.support.sdists import a_sdist
from tests.support.service import ROOT, Service

pytestmark = needs_builders

BOTH = ("any", THIS_CLASS.name)


@pytest.fixture(scope="module")
def service(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    environment = {"LOCKSTEP_REFUSALS_FOR": "0.2s"}
    flags = ["--builds", "native", *INTERPRETER]
    with builder_service(folder / "data", index.url, places=BOTH, flags=flags, environment=environment) as started:
        yield started


def test_a_pure_one(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, f"{name}-static", "1.0")
    publish(index, f"{name}-dynamic", "3.0")
    stem = name.replace("-", "_")
    index.add(
        *a_sdist(
            name,
            build_requires=[f"{name}-static"],
            code=f"import {stem}_static, {stem}_dynamic; print('hello', 'https://me:hunter2@x.example')",
            more=f"\ndef get_requires_for_build_wheel(config_settings=None):\n    return ['{name}-dynamic>=2']\n",
        )
    )
    answer = service.resolve(name, target=MUSL).json()
    [built] = detail(service, answer)["packages"][0]["builds"]
    assert (built["target"], built["reproducible"]) == ("any", True)
    assert built["log"].endswith("hello https://x.example")
    assert built["builder"].startswith(f"build-v1-cp{THIS.replace('.', '')}-pure, CPython {THIS}.")
    assert scratch(service) == []
    assert builders(service) == []


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_a_native_one(service: Service, index: PackageIndex, name: str, tmp_path: Path) -> None:
    tag = f"cp{THIS_CLASS.python.replace('.', '')}"
    stem = name.replace("-", "_")
    index.add(*a_sdist(name, tag=f"{tag}-{tag}-linux_{platform.machine()}", code="compile_it('')", more=NATIVE))
    elsewhere = service.resolve(name, target=MUSL).json()
    here = service.resolve(name, target=HERE)
    [built] = detail(service, here.json())["packages"][0]["builds"]
    assert (built["target"], built["reproducible"]) == (THIS_CLASS.name, True)
    assert elsewhere["type"].endswith(":build-required")
    assert any("no builder image for cp312-musllinux_1_2_x86_64: set `builders`" in h for h in elsewhere["hints"])
    argv = [sys.executable, "-m", "resolver", "fetch", "--server", service.url, "--target", str(tmp_path / "deps")]
    subprocess.run([*argv, "--requirement", name], cwd=ROOT, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "deps/site-packages")}
    asked = [sys.executable, "-S", "-c", f"import {stem}; print({stem}.answer())"]
    assert subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout == "42\n"


def odd(index: PackageIndex, data: Path, program: list[str], places: tuple[str, ...] = BOTH) -> Service:
    """A service whose builders are something else."""
    environment = {"LOCKSTEP_SDIST_TIMEOUT": "4s", "LOCKSTEP_BUILDS": "native"}
    return builder_service(data, index.url, places=places, flags=INTERPRETER, environment=environment, program=program)


def python(code: str) -> list[str]:
    """A program that stands for a builder: `ask(method, path, body)` asks the service with the token of its task."""
    return [str(PYTHON), "-c", _ASKING + code]


_ASKING = """
import io, json, sys, tarfile, time, urllib.error, urllib.request
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
token = open(given["--token-file"]).read()

def ask(method, path, body=None):
    headers = {"Authorization": "Bearer " + token}
    request = urllib.request.Request(given["--server"] + path, body, headers, method=method)
    return urllib.request.urlopen(request).read()

"""
ABOUT = f"python={platform.python_version()}&machine={platform.machine()}&libc={quote(libc())}"
TAKE = f"task = ask('GET', '/v1/builder/task?{ABOUT}'); "
FINE = """json.dumps({"code": 0, "stopped": None, "log": ""}).encode() + b"\\n" + """


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ([], "the cluster has no room for another builder"),
        (["/bin/false"], "the builder ended before it asked for its task: exit code 1"),
        (python("time.sleep(10**6)"), "the builder did not ask for its task within 4 s"),
        (
            python(f"ask('GET', '/v1/builder/task?{ABOUT.replace('python=3', 'python=2')}')"),
            "its builder is of no target class",
        ),
        (
            python(f"ask('GET', '/v1/builder/task?{ABOUT.partition('libc')[0]}libc=musl+1.2')"),
            f"has to be {THIS_CLASS}",
        ),
    ],
    ids=["none", "ends", "never-comes", "no-class", "another-class"],
)
def test_where_no_builder_comes_it_is_said(
    index: PackageIndex, tmp_path: Path, name: str, program: list[str], words: str
) -> None:
    index.add(*a_sdist(name))
    publish(index, f"{name}-next", "1.0")
    with odd(index, tmp_path / "data", program) as service:
        problem = service.resolve(name, target=HERE).json()
        assert problem["type"].endswith(":build-required")
        assert (problem["package"], problem["version"]) == (name, "1.0")
        assert any("it cannot be built here" in hint and words in hint for hint in problem["hints"]), problem
        assert builders(service) + scratch(service) == []
        assert "lock" in service.resolve(f"{name}-next", target=HERE).json()


def test_where_none_can_be_started_for_now_callers_may_ask_again(
    index: PackageIndex, tmp_path: Path, name: str
) -> None:
    index.add(*a_sdist(name))
    with odd(index, tmp_path / "data", [AWAY]) as service:
        answer = service.resolve(name, target=HERE)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        problem = answer.json()
        assert (problem["type"].rpartition(":")[2], problem["retryable"]) == ("busy", True)
        (told,) = [event for event in service.events() if event["event"] == "build.no-builder"]
        assert (told["package"], told["cause"]) == (name, "the API server does not answer")
        assert builders(service) + scratch(service) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ask('PUT', '/v1/builder/answer?step=1', b'rubbish')", "something that is no answer"),
        ("ask('PUT', '/v1/builder/answer?step=1', b'[' * 100000 + b'\\n')", "something that is no answer"),
        ("ask('PUT', '/v1/builder/answer?step=1', b'{}\\n{}')", "something that is no answer"),
        (f"ask('PUT', '/v1/builder/answer?step=1', {FINE} b'junk')", "told nothing"),
        (f"ask('PUT', '/v1/builder/answer?step=1', {FINE} b'{{\"wheel\": \"x\"}}\\nPK')", "none of a wheel"),
        (
            f"[ask('PUT', f'/v1/builder/answer?step={{n}}', {FINE} b'{{\"wheel\": \"a-1-py3-none-any.whl\"}}\\nPK') "
            "for n in (1, 2)]; time.sleep(10**6)",
            "its wheel cannot be read",
        ),
        ("ask('PUT', '/v1/builder/answer?step=2', b'')", "ended before it was done: exit code 1"),
        ("sys.exit(3)", "ended before it was done: exit code 3"),
    ],
    ids=["rubbish", "deep", "empty", "no-answer", "no-wheel", "junk-in-a-wheel", "another-step", "gives-up"],
)
def test_a_builder_that_answers_rubbish(index: PackageIndex, tmp_path: Path, name: str, code: str, words: str) -> None:
    index.add(*a_sdist(name))
    with odd(index, tmp_path / "data", python(TAKE + code)) as service:
        problem = service.resolve(name, target=HERE).json()
        assert problem["type"].endswith(":build-failed")
        assert f"{name} 1.0" in problem["detail"]
        assert words in problem["detail"]
        assert builders(service) + scratch(service) == []


def test_a_builder_that_is_killed(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code=asleep("10**6 + 3")))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(service.resolve, name, target=HERE)
        while not sleeping("10**6 + 3"):
            assert not asked.done(), asked.result().json()
            time.sleep(0.05)
        for pid in builders(service):
            os.kill(pid, signal.SIGKILL)
        problem = asked.result().json()
    assert "its builder ended before it was done: exit code -9" in problem["detail"]
    assert not sleeping("10**6 + 3") or os.geteuid() != 0
    assert scratch(service) == []


def test_a_request_that_goes_away_and_a_service_that_ends_leave_no_builder(
    index: PackageIndex, tmp_path: Path, name: str
) -> None:
    index.add(*a_sdist(name, code=asleep("10**6 + 4")))
    flags = [*INTERPRETER, "--builds", "native", "--config", str(tmp_path / "config")]
    (tmp_path / "config").write_text("shutdown_grace: 0.1s\n")
    with builder_service(tmp_path / "data", index.url, places=BOTH, flags=flags) as service:
        with service.client() as client:
            client.post("/v1/resolve", json={"requirements": name, "target": HERE, "wait": 0})
        while not sleeping("10**6 + 4"):
            time.sleep(0.05)
        url = service.url
        service.stop()
        assert not sleeping("10**6 + 4")
        assert not [path for path in Path("/proc").glob("[0-9]*") if url.encode() in cmdline(path)]


def asleep(words: str) -> str:
    """Code that sleeps in a process of its own, by which it is found."""
    argv = f"['sh', '-c', 'sleep 1000000; : lockstep-{words}']"
    return f"import subprocess; subprocess.run({argv}, start_new_session=True)"


def sleeping(words: str) -> list[Path]:
    """The processes of a build that has these words in its code, and sleeps."""
    return [path for path in Path("/proc").glob("[0-9]*") if f"lockstep-{words}".encode() in cmdline(path)]


def cmdline(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


@needs_landlock
@pytest.mark.parametrize("what", ["token", "memory", "variables", "files", "signal", "given"])
def test_a_build_does_not_come_at_its_builder(service: Service, index: PackageIndex, name: str, what: str) -> None:
    """Which has the token of the task, and is of the same user."""
    if what == "signal" and landlock.abi() < 6:
        pytest.skip(f"no Landlock here that knows signals (ABI {landlock.abi()})")
    code = {
        "token": "open(about[about.index('--token-file') + 1])",
        "memory": "open(f'/proc/{builder}/mem', 'rb')",
        "variables": "open(f'/proc/{builder}/environ')",
        "files": "os.listdir(f'/proc/{builder}/fd')",
        "signal": "os.kill(builder, 9)",
        "given": "open(os.path.join(about[about.index('--folder') + 1], 'given/task/task.json'), 'w')",
    }[what]
    index.add(*a_sdist(name, code=f"touch({code!r})", more=_TOUCH))
    problem = service.resolve(name, target=HERE).json()
    assert "PermissionError" in problem.get("detail", ""), problem


_TOUCH = """
def touch(code):
    builder = os.getppid()
    while b"--token-file" not in open(f"/proc/{builder}/cmdline", "rb").read():
        builder = int(open(f"/proc/{builder}/stat").read().rpartition(")")[2].split()[1])
    about = open(f"/proc/{builder}/cmdline").read().split("\\0")
    exec(code)
"""


@pytest.mark.parametrize(
    "token", [None, "wrong", "", "é" * 10, "x" * 5000], ids=["none", "wrong", "empty", "odd", "long"]
)
def test_without_the_token_of_a_task_there_is_nothing(service: Service, token: str | None) -> None:
    headers = [] if token is None else [(b"Authorization", f"Bearer {token}".strip().encode())]
    with service.client() as client:
        for method, path in (("GET", f"/v1/builder/task?{ABOUT}"), ("PUT", "/v1/builder/answer?step=1")):
            answer = client.request(method, path, headers=headers, content=b"x" * 100 if method == "PUT" else None)
            assert answer.status_code == 401
            assert answer.json()["type"].endswith(":unauthenticated")
        assert "/v1/builder/task" not in client.get("/openapi.json").json()["paths"]


def test_without_builders_there_is_no_such_route(index: PackageIndex, tmp_path: Path) -> None:
    with Service(tmp_path / "data", index_url=index.url) as service, service.client() as client:
        assert client.get(f"/v1/builder/task?{ABOUT}").status_code == 404
        assert client.put("/v1/builder/answer?step=1", content=b"x" * 100).status_code == 404


def test_its_token_is_for_its_task_whatever_callers_show(index: PackageIndex, tmp_path: Path, name: str) -> None:
    """Where callers need tokens, builders do with theirs, which are good for nothing else."""
    index.add(*a_sdist(name))
    told = tmp_path / "told"
    told.touch(mode=0o666)
    told.chmod(0o666)
    reachable(told)
    (tmp_path / "tokens.yaml").write_text(
        json.dumps({"tokens": [{"name": "ci", "role": "operator", "token": "the-token-of-ci-456789"}]})
    )
    flags = [*INTERPRETER, "--auth", "static", "--auth-tokens", str(tmp_path / "tokens.yaml")]
    code = "\ntry:\n    ask('GET', '/v1/locks')\nexcept urllib.error.HTTPError as error:\n"
    program = python(TAKE + code + f"    open({str(told)!r}, 'w').write(str(error.code))")
    with builder_service(tmp_path / "data", index.url, places=BOTH, flags=flags, program=program) as service:
        headers = {"Authorization": "Bearer the-token-of-ci-456789"}
        with httpx.Client(base_url=service.url, headers=headers, timeout=60) as client:
            problem = client.post("/v1/resolve", json={"requirements": name, "target": HERE, "wait": 60}).json()
            assert client.get(f"/v1/builder/task?{ABOUT}").status_code == 401
    assert "its builder ended before it was done: exit code 0" in problem["detail"]
    assert told.read_text() == "401"
