"""Real OCI clients pull a bundle from the service and run what is in it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.client import environment
from resolver.domain.targets import TargetEnvironment
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.registries import Podman, containerd, podman, program, python_rootfs, run
from tests.support.service import ROOT, Service

MANY = 130
HERE = TargetEnvironment.from_markers(environment.markers(), environment.libc())
TAG = f"cp{HERE.python.replace('.', '')}-{HERE.libc}"

# Imports every module that it is told of, from where the bundle is mounted, and writes nowhere.
PROGRAM = """
import importlib, os, sys
for name in sys.argv[1].split(","):
    module = importlib.import_module(name)
    assert module.__file__.startswith("/deps/"), module.__file__
    assert os.path.exists(module.__cached__), f"no byte-code of {name}"
for path in ("/deps/site-packages/x", "/x"):
    try:
        open(path, "w")
    except OSError as refused:
        print(type(refused).__name__, end=" ")
print(os.getuid(), len(sys.argv[1].split(",")))
"""


@pytest.fixture(scope="module")
def runtime() -> Iterator[Podman]:
    with podman() as started:
        yield started


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return python_rootfs(tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def small(service: Service, index: PackageIndex) -> dict[str, Any]:
    """A workload of three wheels, one with a `.pth` file."""
    publish(index, "pulled", "1.0", requires=["pulled-pth", "pulled-tool"])
    publish(index, "pulled-tool", "1.0", entry_points="[console_scripts]\npulled = pulled_tool:main\n")
    publish(index, "pulled-pth", "1.0", files={"pulled.pth": "beside\n", "beside/from_pth.py": "here = True\n"})
    return ask(service, "pulled")


@pytest.fixture(scope="module")
def large(service: Service, index: PackageIndex) -> dict[str, Any]:
    """A workload of more wheels than overlayfs takes layers."""
    names = [f"many-{number:03}" for number in range(1, MANY)]
    for number, name in enumerate(names):
        publish(index, name, "1.0", files={f"{name.replace('-', '_')}.py": f"number = {number}\n" * (number + 1)})
    publish(index, "many-000", "1.0", requires=names)
    return ask(service, "many-000")


def ask(service: Service, name: str) -> dict[str, Any]:
    workload = {"namespace": "shop", "name": name, "revision": "1"}
    answer = service.resolve(name, workload=workload, target={"python": HERE.python, "platform": HERE.platform})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def host(service: Service) -> str:
    return service.url.removeprefix("http://")


def imports(runtime: Podman, rootfs: tuple[Path, str], image: str, modules: list[str]) -> str:
    """Run the program in a container that has the image mounted: as uid 1000, with a read-only root, rights dropped."""
    root, python = rootfs
    return runtime(
        *("run", "--rm", "--network=host", "--read-only", "--user=1000:1000", "--cap-drop=all"),
        *("--security-opt=no-new-privileges", f"--mount=type=image,source={image},destination=/deps"),
        *("--env=PYTHONPATH=/deps/site-packages", "--env=LC_ALL=C.UTF-8"),
        *("--rootfs", str(root), python, "-c", PROGRAM, ",".join(modules)),
    ).strip()


def test_skopeo_copies_every_machine_and_inspects(service: Service, small: dict[str, Any], tmp_path: Path) -> None:
    skopeo = program("skopeo")
    image = f"docker://{host(service)}/shop/pulled:{TAG}"
    inspected = json.loads(run([skopeo, "inspect", "--tls-verify=false", image]))
    assert (inspected["RepoTags"], inspected["Os"]) == ([TAG], "linux")
    run([skopeo, "copy", "--all", "--src-tls-verify=false", image, f"oci:{tmp_path}/copy:here"])
    blob = tmp_path / "copy" / "blobs" / "sha256" / small["bundle"]["digest"].removeprefix("sha256:")
    assert len(json.loads(blob.read_bytes())["layers"]) == 4
    by_digest = f"docker://{host(service)}/bundles@{small['bundle']['digest']}"
    run([skopeo, "copy", "--src-tls-verify=false", by_digest, f"oci:{tmp_path}/alone:here"])


def test_podman_mounts_a_bundle_that_imports_whole(
    service: Service, small: dict[str, Any], runtime: Podman, rootfs: tuple[Path, str]
) -> None:
    image = f"{host(service)}/shop/pulled:{TAG}"
    runtime("pull", "--tls-verify=false", image)
    told = imports(runtime, rootfs, image, ["pulled", "pulled_tool", "from_pth"])
    assert told == "OSError OSError 1000 3"


def test_podman_mounts_a_bundle_of_many_wheels(
    service: Service, large: dict[str, Any], runtime: Podman, rootfs: tuple[Path, str]
) -> None:
    with service.client() as client:
        manifest = client.get(f"/v2/bundles/manifests/{large['bundle']['digest']}").json()
    assert len(manifest["layers"]) <= 100 < len(large["lock"]["packages"])
    image = f"{host(service)}/bundles@{large['bundle']['digest']}"
    runtime("pull", "--tls-verify=false", image)
    told = imports(runtime, rootfs, image, [f"many_{number:03}" for number in range(MANY)])
    assert told == f"OSError OSError 1000 {MANY}"


def test_the_client_fetches_a_bundle_of_many_wheels(service: Service, large: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "deps"
    who = ["--namespace", "shop", "--workload", "many-000", "--revision", "1"]
    argv = [sys.executable, "-m", "resolver", "fetch", "--server", service.url, "--target", str(target), *who]
    done = subprocess.run(
        [*argv, "--requirement", "many-000"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pinned" in done.stderr
    modules = {path.stem for path in (target / "site-packages").glob("many_*.py")}
    assert modules >= {f"many_{number:03}" for number in range(1, MANY)}
    assert len([*(target / "site-packages").glob("*.dist-info")]) == MANY == len(large["lock"]["packages"])


def test_containerd_pulls_and_unpacks(service: Service, small: dict[str, Any], tmp_path: Path) -> None:
    with containerd() as ctr:
        image = f"{host(service)}/shop/pulled:{TAG}"
        run([*ctr, "images", "pull", "--plain-http", "--snapshotter=native", image])
        mounted = tmp_path / "mounted"
        mounted.mkdir()
        run([*ctr, "images", "mount", "--snapshotter=native", image, str(mounted)])
        try:
            assert (mounted / "site-packages" / "pulled" / "__init__.py").is_file()
            assert (mounted / "bin" / "pulled").stat().st_mode & 0o777 == 0o755
        finally:
            run([*ctr, "images", "unmount", str(mounted)])
