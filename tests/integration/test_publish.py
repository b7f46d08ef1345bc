"""`lockstep publish` to a real registry: what arrives, what is not sent again, who may, what happens when it fails."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.client.errors import BadUsage, NotAllowed, Unavailable
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.registries import Registry, program, registry, run
from tests.support.registry_proxy import RegistryProxy
from tests.support.service import ROOT, Service

AMD64 = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
ARM64 = {"python": "3.12", "platform": "manylinux_2_28_aarch64"}
TAG = "cp312-glibc"
LOCK_ARTIFACT = "application/vnd.dev.lockstep.pylock.v1+toml"
LOGIN = ("pusher", "hush" * 3)


@pytest.fixture(scope="module")
def answers(service: Service, index: PackageIndex) -> list[dict[str, Any]]:
    """A workload that two kinds of machines asked for."""
    publish(index, "published", "1.0", requires=["published-dep"])
    publish(index, "published-dep", "1.0")
    workload = {"namespace": "shop", "name": "published", "revision": "1"}
    return [service.resolve("published", workload=workload, target=target).json() for target in (AMD64, ARM64)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


def lockstep(service: Service, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `lockstep publish --plain-http`, with nobody logged in unless the variables say so."""
    environment = {**os.environ, "HOME": "/nonexistent", "XDG_RUNTIME_DIR": "", "DOCKER_CONFIG": "", **variables}
    environment.pop("REGISTRY_AUTH_FILE", None) if "REGISTRY_AUTH_FILE" not in variables else None
    return subprocess.run(
        [sys.executable, "-m", "resolver", "publish", "--server", service.url, "--plain-http", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def published(service: Service, *arguments: str, **variables: str) -> str:
    """The one reference that it printed."""
    done = lockstep(service, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    return line


def document(target: Registry, repository: str, reference: str) -> dict[str, Any]:
    kinds = ("index", "manifest")
    accept = ", ".join(f"application/vnd.oci.image.{kind}.v1+json" for kind in kinds)
    answer = target.get(f"{repository}/manifests/{reference}", Accept=accept)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_workload_arrives_whole_with_its_lock(
    service: Service, target: Registry, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    reference = published(service, "shop/published", f"{target.host}/team/published")
    name, digest = reference.split("@")
    assert name == f"{target.host}/team/published:{TAG}"
    with service.client() as client:
        here = client.get(f"/v2/shop/published/manifests/{TAG}")
    assert here.headers["Docker-Content-Digest"] == digest
    index = document(target, "team/published", TAG)
    assert index == here.json()
    assert {entry["platform"]["architecture"]: entry["digest"] for entry in index["manifests"]} == {
        "amd64": answers[0]["bundle"]["digest"],
        "arm64": answers[1]["bundle"]["digest"],
    }
    for entry in index["manifests"]:
        image = document(target, "team/published", entry["digest"])
        assert len(image["layers"]) == 2

    # This registry has no list of referrers, so the list is a tag.
    for subject in (digest, *(entry["digest"] for entry in index["manifests"])):
        listed = document(target, "team/published", subject.replace(":", "-"))["manifests"]
        assert {entry["artifactType"] for entry in listed} == {LOCK_ARTIFACT}
        lock = document(target, "team/published", listed[0]["digest"])
        assert lock["subject"]["digest"] == subject
        content = target.get(f"team/published/blobs/{lock['layers'][0]['digest']}").text
        assert 'lock-version = "1.0"' in content

    skopeo = program("skopeo")
    source = f"docker://{target.host}/team/published:{TAG}"
    run([skopeo, "copy", "--all", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:here"])


def test_what_is_there_is_not_sent_again(service: Service, target: Registry, answers: list[dict[str, Any]]) -> None:
    with RegistryProxy(target.host) as proxy:
        published(service, "shop/published", f"{proxy.host}/team/twice")
        assert proxy.count("PUT", "/blobs/uploads/") > 0
        proxy.requests.clear()
        published(service, "shop/published", f"{proxy.host}/team/twice")
        assert proxy.count("POST") == proxy.count("PUT", "/blobs/uploads/") == 0

        proxy.requests.clear()
        published(service, "shop/published", f"{proxy.host}/team/beside", "--mount-from", "team/twice")
        assert proxy.count("POST", "from=team%2Ftwice") > 0
        assert proxy.count("PUT", "/blobs/uploads/") == 0


def test_a_lock_is_published_by_the_beginning_of_its_digest(
    service: Service, target: Registry, answers: list[dict[str, Any]]
) -> None:
    lock = answers[0]["lock"]["digest"]
    published(service, lock.removeprefix("sha256:")[:12], f"{target.host}/team/lock")
    [entry] = document(target, "team/lock", TAG)["manifests"]
    assert entry["digest"] == answers[0]["bundle"]["digest"]
    assert entry["annotations"]["dev.lockstep.lock"] == lock


def test_a_login_is_read_from_its_file_and_shown_nowhere(
    service: Service, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    with registry(tmp_path, login=LOGIN) as guarded:
        place = f"{guarded.host}/team/guarded"
        published(service, "shop/published", place, REGISTRY_AUTH_FILE=str(guarded.login_file()))
        assert document(guarded, "team/guarded", TAG)["manifests"]

        nobody = lockstep(service, "shop/published", place)
        wrong_file = guarded.login_file(("pusher", "wrong" * 3))
        wrong = lockstep(service, "shop/published", place, REGISTRY_AUTH_FILE=str(wrong_file))
        for refused in (nobody, wrong):
            assert refused.returncode == NotAllowed.exit_code, refused.stderr
            assert guarded.host in refused.stderr
            assert "wrong" * 3 not in refused.stderr + refused.stdout
        assert "REGISTRY_AUTH_FILE" in nobody.stderr


def test_a_token_is_asked_for_with_the_login(
    service: Service, target: Registry, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    with RegistryProxy(target.host, login=LOGIN) as proxy:
        guarded = Registry(tmp_path, login=LOGIN)
        guarded.host = proxy.host
        place = f"{proxy.host}/team/tokens"
        published(service, "shop/published", place, REGISTRY_AUTH_FILE=str(guarded.login_file()))
        assert set(proxy.scopes) == {"repository:x:pull,push"}
        identity = tmp_path / "identity.json"
        identity.write_text(json.dumps({"auths": {f"https://{proxy.host}/v2/": {"identitytoken": LOGIN[1]}}}))
        published(service, "shop/published", f"{place}-2", REGISTRY_AUTH_FILE=str(identity))
        assert len(proxy.scopes) == 2
        wrong = guarded.login_file(("pusher", "wrong"))
        done = lockstep(service, "shop/published", place, REGISTRY_AUTH_FILE=str(wrong))
        assert done.returncode == NotAllowed.exit_code, done.stderr


def test_what_passes_is_tried_again(service: Service, target: Registry, answers: list[dict[str, Any]]) -> None:
    with RegistryProxy(target.host) as proxy:
        left = {"PUT": 2, "POST": 1, "HEAD": 1}

        def fault(method: str, path: str) -> int | None:
            left[method] = left.get(method, 0) - 1
            if left[method] < 0:
                return None
            return 503 if left[method] else 0

        proxy.fault = fault
        published(service, "shop/published", f"{proxy.host}/team/flaky")
    assert len(document(target, "team/flaky", TAG)["manifests"]) == 2


@pytest.mark.parametrize("status", [0, 503])
def test_a_registry_that_stays_away_is_given_up(
    service: Service, target: Registry, answers: list[dict[str, Any]], status: int
) -> None:
    with RegistryProxy(target.host) as proxy:
        proxy.fault = lambda method, path: status if method == "PUT" else None
        done = lockstep(service, "shop/published", f"{proxy.host}/team/away{status}", "--timeout", "4")
    assert done.returncode == Unavailable.exit_code, done.stderr
    assert proxy.host in done.stderr
    assert target.get(f"team/away{status}/tags/list").status_code == 404, "no tag before all of it is there"


def test_a_refusal_is_final(service: Service, target: Registry, answers: list[dict[str, Any]]) -> None:
    with RegistryProxy(target.host) as proxy:
        proxy.fault = lambda method, path: 400 if method == "PUT" else None
        done = lockstep(service, "shop/published", f"{proxy.host}/team/refused")
    assert (done.returncode, "not now" in done.stderr) == (65, True), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("shop/published", "nowhere"),
        ("shop/published", "https://registry.example.com/team/x"),
        ("shop/published", "registry.example.com/Team/x"),
        ("shop/published", "--output/team"),
        ("shop/..", "registry.example.com/team/x"),
        ("latest", "registry.example.com/team/x"),
        ("shop/published", "registry.example.com/team/x", "--mount-from", "../x"),
    ],
)
def test_what_names_nothing_is_bad_usage(service: Service, arguments: tuple[str, ...]) -> None:
    assert lockstep(service, *arguments).returncode == BadUsage.exit_code


def test_a_workload_that_is_not_there_is_said_so(service: Service) -> None:
    done = lockstep(service, "shop/nobody-has-this", "registry.example.com/team/x")
    assert (done.returncode, "shop/nobody-has-this" in done.stderr) == (66, True), done.stderr


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"auths": []}', '{"auths": {"HOST": {"auth": "!"}}}', '{"credHelpers": {"HOST": "x"}}']
)
def test_a_file_of_logins_that_is_none(
    service: Service, target: Registry, answers: list[dict[str, Any]], tmp_path: Path, content: str
) -> None:
    path = tmp_path / "login.json"
    path.write_text(content.replace("HOST", target.host))
    done = lockstep(service, "shop/published", f"{target.host}/team/x", REGISTRY_AUTH_FILE=str(path))
    assert (done.returncode, str(path) in done.stderr) == (BadUsage.exit_code, True), done.stderr


def test_the_login_of_the_longest_name_counts(
    service: Service, target: Registry, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    with RegistryProxy(target.host, login=LOGIN) as proxy:
        guarded = Registry(tmp_path, login=LOGIN)
        guarded.host = f"{proxy.host}/team"
        entries = json.loads(guarded.login_file().read_bytes())["auths"]
        guarded.host = proxy.host
        entries |= json.loads(guarded.login_file(("other", "login")).read_bytes())["auths"]
        path = tmp_path / "both.json"
        path.write_text(json.dumps({"auths": entries}))
        published(service, "shop/published", f"{proxy.host}/team/long", REGISTRY_AUTH_FILE=str(path))
