"""Source distributions: built once, in the real sandbox, and shared."""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from packaging.pylock import Pylock

from resolver.client.environment import libc
from resolver.domain.targets import TargetEnvironment
from tests.integration.conftest import blobs, publish, scratch
from tests.support.index import PackageIndex
from tests.support.interpreters import THIS
from tests.support.sandbox import needs_sandbox
from tests.support.sdists import a_sdist, a_zip
from tests.support.service import ROOT, Service

pytestmark = needs_sandbox

INTERPRETER = ("--interpreter", f"{THIS}={sys.executable}")
COMPILER = shutil.which("cc")
THIS_CLASS = TargetEnvironment.from_markers(
    {"python_full_version": THIS, "platform_machine": platform.machine()}, libc()
)
HERE = {"python": THIS_CLASS.python, "platform": THIS_CLASS.platform}
MUSL = {"python": "3.12", "platform": "musllinux_1_2_x86_64"}


def detail(service: Service, answer: dict[str, Any]) -> dict[str, Any]:
    with service.client() as client:
        found: dict[str, Any] = client.get(f"/v1/locks/{answer['lock']['digest']}").json()
    return found


def test_an_sdist_is_built_locked_and_bundled(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, f"{name}-dep", "2.0")
    filename, content = a_sdist(
        name, requires=[f"{name}-dep>=1"], code="print('hello', 'https://me:hunter2@x.example')"
    )
    index.add(filename, content)

    answer = service.resolve(name, target=MUSL).json()

    assert [(p["name"], p["version"]) for p in answer["lock"]["packages"]] == [(name, "1.0"), (f"{name}-dep", "2.0")]
    [package, _] = detail(service, answer)["packages"]
    built = package["builds"][0]
    assert (package["wheels"], package["dependencies"]) == ([], [f"{name}-dep"])
    assert built["wheel"] == answer["lock"]["packages"][0]["wheel"]
    assert built["hash"] == answer["lock"]["packages"][0]["hash"]
    assert (built["sdist"], built["reproducible"]) == (filename, True)
    assert built["sdist_url"].endswith(filename)
    assert built["log"] == "hello https://x.example"
    assert answer["bundle"]["unpacked_size"] > 0
    # packaging, on its own, sees a package that is installed from its source distribution.
    with service.client() as client:
        pylock = Pylock.from_dict(tomllib.loads(client.get(f"/v1/locks/{answer['lock']['digest']}/pylock.toml").text))
        requirements = client.get(f"/v1/locks/{answer['lock']['digest']}/requirements.txt").text
        requirement_lock = client.get(f"/v1/locks/{built['requirements']}").json()
    assert pylock.packages[0].sdist is not None
    assert pylock.packages[0].sdist.filename == filename
    assert pylock.packages[0].wheels is None
    assert f"--hash=sha256:{pylock.packages[0].sdist.hashes['sha256']}" in requirements
    assert requirement_lock["packages"] == []
    assert scratch(service) == []


def test_later_locks_use_the_same_wheel(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name))
    publish(index, f"{name}-other", "1.0")
    first = service.resolve(name, target=MUSL).json()
    asked = index.count(f"{name.replace('-', '_')}-1.0.tar.gz")
    second = service.resolve([name, f"{name}-other"], target={"python": "3.13", "platform": "manylinux_2_28_aarch64"})

    wheels = {package["name"]: package["hash"] for package in second.json()["lock"]["packages"]}
    assert wheels[name] == first["lock"]["packages"][0]["hash"]
    assert index.count(f"{name.replace('-', '_')}-1.0.tar.gz") == asked
    assert len(events(service, "build.done", name)) == 1


def test_twenty_first_requests_are_one_build(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name))
    for number in range(10):
        publish(index, f"{name}-{number}", "1.0")
    with ThreadPoolExecutor(20) as pool:
        # Half of them ask the same question, half of them each another one.
        asked = [[name, f"{name}-{number}"] for number in range(10)] + [[name]] * 10
        answers = [answer.json() for answer in pool.map(lambda each: service.resolve(each, target=MUSL), asked)]
    assert 'lockstep_sdist_builds_total{result="built"}' in service.metrics()
    assert len({p["hash"] for answer in answers for p in answer["lock"]["packages"] if p["name"] == name}) == 1
    assert len(events(service, "build.done", name)) == 1


def test_a_zip_is_an_sdist_too(service: Service, index: PackageIndex, name: str) -> None:
    filename, content = a_sdist(name)
    index.add(filename.replace(".tar.gz", ".zip"), a_zip(untarred(content)))
    answer = service.resolve(name, target=MUSL).json()
    assert detail(service, answer)["packages"][0]["builds"][0]["sdist"].endswith(".zip")


def test_what_a_build_wants_is_locked_and_given_to_it(service: Service, index: PackageIndex, name: str) -> None:
    """PEP 518, and what the backend asks for besides (PEP 517)."""
    publish(index, f"{name}-static", "1.0")
    publish(index, f"{name}-dynamic", "3.0")
    stem = name.replace("-", "_")
    filename, content = a_sdist(
        name,
        build_requires=[f"{name}-static"],
        code=f"import {stem}_static, {stem}_dynamic",
        more=f"\ndef get_requires_for_build_wheel(config_settings=None):\n    return ['{name}-dynamic>=2']\n",
    )
    index.add(filename, content)
    answer = service.resolve(name, target=MUSL).json()
    assert [package["name"] for package in answer["lock"]["packages"]] == [name]
    built = detail(service, answer)["packages"][0]["builds"][0]
    with service.client() as client:
        wanted = client.get(f"/v1/locks/{built['requirements']}").json()
    assert [(p["name"], p["version"]) for p in wanted["packages"]] == [
        (f"{name}-dynamic", "3.0"),
        (f"{name}-static", "1.0"),
    ]


def test_without_what_it_wants_nothing_is_built(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, build_requires=[f"{name}-absent"]))
    problem = service.resolve(name, target=MUSL).json()
    assert problem["type"].endswith(":build-required")
    assert (problem["package"], problem["version"]) == (name, "1.0")
    assert any(f"{name}-absent" in hint for hint in problem["hints"])


def test_the_version_that_another_package_pins_is_built(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0", requires=[f"{name}-dep<2"])
    index.add(*a_sdist(f"{name}-dep", "1.5"))
    index.add(*a_sdist(f"{name}-dep", "2.5", code="raise RuntimeError('not this one')"))
    answer = service.resolve(name, target=MUSL).json()
    assert {p["name"]: p["version"] for p in answer["lock"]["packages"]} == {name: "1.0", f"{name}-dep": "1.5"}


def test_the_newest_is_built_where_an_older_one_has_a_wheel(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    index.add(*a_sdist(name, "2.0"))
    answer = service.resolve(name, target=MUSL).json()
    assert [package["version"] for package in answer["lock"]["packages"]] == ["2.0"]
    publish(index, f"{name}-bad", "1.0")
    index.add(*a_sdist(f"{name}-bad", "2.0", code="raise RuntimeError('no')"))
    problem = service.resolve(f"{name}-bad", target=MUSL).json()
    assert problem["type"].endswith(":build-failed")
    assert problem["version"] == "2.0"
    assert problem["hints"][-1] == f"to take the older one knowingly, require {name}-bad==1.0"


def test_the_second_engine_is_shown_what_was_built(index: PackageIndex, tmp_path: Path, name: str) -> None:
    publish(index, name, "1.0", requires=[f"{name}-dep<2"])
    index.add(*a_sdist(f"{name}-dep", "1.5"))
    index.add(*a_sdist(f"{name}-dep", "2.5"))
    with Service(tmp_path / "data", index_url=index.url, flags=["--engine", "pip", *INTERPRETER]) as service:
        answer = service.resolve(name, target=HERE).json()
    assert {p["name"]: p["version"] for p in answer["lock"]["packages"]} == {name: "1.0", f"{name}-dep": "1.5"}


def test_a_pin_is_extended_with_the_wheel_that_was_built(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name))
    workload = {"namespace": "shop", "name": name, "revision": "r1"}
    first = service.resolve(name, target=MUSL, workload=workload).json()
    index.add(*a_sdist(name, "2.0"))
    elsewhere = {"python": "3.12", "platform": "manylinux_2_28_aarch64"}
    second = service.resolve(name, target=elsewhere, workload=workload).json()
    assert second["lock"]["packages"] == first["lock"]["packages"]
    assert second["lock"]["digest"] != first["lock"]["digest"]


def test_a_built_wheel_that_rots_is_built_again(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name))
    publish(index, f"{name}-other", "1.0")
    before = service.resolve(name, target=MUSL).json()["lock"]["packages"]
    [path] = [path for path in blobs(service) if before[0]["hash"].partition(":")[2] in path]
    (service.data / "blobs" / path).chmod(0o600)
    (service.data / "blobs" / path).write_bytes(b"rotten")
    answer = service.resolve([name, f"{name}-other"], target=MUSL).json()
    while answer.get("retryable"):
        time.sleep(answer["retry_after"])
        answer = service.resolve([name, f"{name}-other"], target=MUSL).json()
    assert answer["lock"]["packages"][0] == before[0]
    assert len(events(service, "build.done", name)) == 2


def test_a_hash_that_is_given_is_the_sdists(service: Service, index: PackageIndex, name: str) -> None:
    filename, content = a_sdist(name)
    index.add(filename, content)
    good = service.resolve(f"{name}==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}", target=MUSL).json()
    assert [package["name"] for package in good["lock"]["packages"]] == [name]
    bad = service.resolve(f"{name}==1.0 --hash=sha256:{'0' * 64}", target=MUSL).json()
    assert bad["type"].endswith(":build-required")


def test_a_build_that_differs_each_time_is_said_to(service: Service, index: PackageIndex, name: str) -> None:
    stem = name.replace("-", "_")
    index.add(*a_sdist(name, code=f"open('{stem}.py', 'a').write('A = %r' % os.urandom(8))"))
    answer = service.resolve(name, target=MUSL).json()
    assert detail(service, answer)["packages"][0]["builds"][0]["reproducible"] is False


def test_what_is_not_for_any_platform_is_not_built_by_default(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, tag="cp312-cp312-linux_x86_64"))
    problem = service.resolve(name, target=MUSL).json()
    assert problem["type"].endswith(":build-required")
    assert problem["package"] == name
    assert any("builds: native" in hint for hint in problem["hints"])


def test_a_compiler_is_not_there(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*a_sdist(name, code="import subprocess; subprocess.run([os.environ['CC'], '-c', 'a.c'], check=True)"))
    problem = service.resolve(name, target=MUSL).json()
    assert problem["type"].endswith(":build-required")
    assert any("compiler" in hint for hint in problem["hints"])


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
@pytest.mark.parametrize("library", ["", "z", "newer"], ids=["alone", "foreign", "newer"])
def test_a_native_one_is_built_for_this_machines_class(
    index: PackageIndex, tmp_path: Path, name: str, library: str
) -> None:
    stem = name.replace("-", "_")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    filename, content = a_sdist(
        name, tag=f"{tag}-{tag}-linux_{platform.machine()}", code=f"compile_it({library!r})", more=NATIVE
    )
    index.add(filename, content)
    with Service(tmp_path / "data", index_url=index.url, flags=["--builds", "native", *INTERPRETER]) as service:
        elsewhere = service.resolve(name, target=MUSL).json()
        here = service.resolve(name, target=HERE)
        if library:
            assert here.json()["type"].endswith(":build-failed")
            assert {"z": "libz.so", "newer": "needs glibc 2.99"}[library] in here.json()["detail"]
            return
        assert elsewhere["type"].endswith(":build-required")
        assert any("no builder for cp312-musl" in hint for hint in elsewhere["hints"])
        [built] = detail(service, here.json())["packages"][0]["builds"]
        argv = [sys.executable, "-m", "resolver", "fetch", "--server", service.url, "--target", str(tmp_path / "deps")]
        subprocess.run([*argv, "--requirement", name], cwd=ROOT, check=True, capture_output=True)
    assert built["target"] == THIS_CLASS.name
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "deps/site-packages")}
    asked = [sys.executable, "-S", "-c", f"import {stem}; print({stem}.answer())"]
    assert subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout == "42\n"


NATIVE = '''
import subprocess, sysconfig

SOURCE = """
#include <Python.h>
%(more)s
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42%(call)s); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "NAME", 0, -1, methods};
PyMODINIT_FUNC PyInit_NAME(void) { return PyModule_Create(&module); }
"""

def compile_it(library):
    more = {"more": "", "call": ""}
    if library == "newer":
        # As if this were a machine whose C library is newer than those of its class have to be.
        more = {"more": "int newest(void);", "call": " + newest()"}
        with open("newer.c", "w") as file:
            file.write("int newest(void) { return 0; }")
        with open("newer.map", "w") as file:
            file.write("GLIBC_2.99 { newest; };")
        argv = ["cc", "-shared", "-fPIC", "newer.c", "-Wl,--version-script=newer.map,-soname=libc.so.6"]
        subprocess.run([*argv, "-o", "newer.so"], check=True)
    if library == "z":
        more = {"more": "const char *zlibVersion(void);", "call": " + !zlibVersion()"}
    with open(NAME + ".c", "w") as file:
        file.write((SOURCE % more).replace("NAME", NAME))
    include = sysconfig.get_paths()["include"]
    argv = ["cc", "-shared", "-fPIC", "-I" + include, NAME + ".c", "-o", NAME + ".so"]
    subprocess.run([*argv, *{"": [], "z": ["-l:libz.so.1"], "newer": ["newer.so"]}[library]], check=True)
    global MODULE
    MODULE = NAME + ".so"
'''


def test_policy_is_each_namespaces_own(index: PackageIndex, tmp_path: Path) -> None:
    index.add(*a_sdist("policed"))
    environment = {"LOCKSTEP_BUILDS": "never", "LOCKSTEP_NAMESPACE_BUILDS": "shop=pure"}
    with Service(tmp_path / "data", index_url=index.url, environment=environment) as service:
        refused = service.resolve("policed", target=MUSL).json()
        assert refused["type"].endswith(":build-required")
        assert any("builds: never" in hint for hint in refused["hints"])
        workload = {"namespace": "shop", "name": "checkout", "revision": "r1"}
        assert "lock" in service.resolve("policed", target=MUSL, workload=workload).json()
        assert service.resolve("policed", target=MUSL).json()["type"].endswith(":build-required")


def test_equal_wheels_on_another_store(service: Service, index: PackageIndex, name: str, tmp_path: Path) -> None:
    index.add(*a_sdist(name))
    with Service(tmp_path / "data", index_url=index.url) as another:
        one, two = (each.resolve(name, target=MUSL).json() for each in (service, another))
    assert one["lock"] == two["lock"]


def test_without_a_sandbox_it_is_said(index: PackageIndex, tmp_path: Path, name: str) -> None:
    index.add(*a_sdist(name))
    with Service(tmp_path / "data", index_url=index.url, environment={"PATH": str(tmp_path)}) as service:
        problem = service.resolve(name, target=MUSL).json()
    assert problem["type"].endswith(":build-required")
    assert any("bubblewrap" in hint for hint in problem["hints"])


def test_a_built_wheel_stays_as_long_as_its_lock(index: PackageIndex, tmp_path: Path, name: str) -> None:
    index.add(*a_sdist(name))
    rules = {"LOCKSTEP_KEEP_FOR": "0", "LOCKSTEP_GC_GRACE": "0", "LOCKSTEP_KEEP_REVISIONS": "0"}
    with Service(tmp_path / "data", index_url=index.url, environment=rules) as service:
        before = service.resolve(name, target=MUSL).json()
        wheel = before["lock"]["packages"][0]["hash"]
        collect(service, rules)
        collect(service, rules)
        assert not any(before["bundle"]["digest"].partition(":")[2] in path for path in blobs(service))
        assert any(wheel.partition(":")[2] in path for path in blobs(service))
        after = service.resolve(name, target=MUSL).json()
    assert (after["lock"], after["bundle"]) == (before["lock"], before["bundle"])


def test_what_failed_is_not_tried_again_at_once(index: PackageIndex, tmp_path: Path, name: str) -> None:
    index.add(*a_sdist(name, code="raise RuntimeError('no')"))
    publish(index, f"{name}-other", "1.0")
    with Service(tmp_path / "data", index_url=index.url, environment={"LOCKSTEP_REFUSALS_FOR": "1h"}) as service:
        for asked in ([name], [name, f"{name}-other"]):
            problem = service.resolve(asked, target=MUSL).json()
            assert problem["type"].endswith(":build-failed"), problem
        assert len(events(service, "build.failed", name)) == 1


def events(service: Service, event: str, package: str) -> list[dict[str, Any]]:
    return [each for each in service.events() if each.get("event") == event and each.get("package") == package]


def collect(service: Service, environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "resolver", "gc", "--data-dir", str(service.data)]
    subprocess.run(argv, env={**os.environ, **environment}, check=True, capture_output=True)


def untarred(content: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found
