"""`lock`: requirements in, files out."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from resolver.api import problems, schemas
from resolver.domain.targets import TargetEnvironment
from tests.unit.cli.answers import resolve_answer
from tests.unit.cli.conftest import Run
from tests.unit.cli.service import Asked, Said, Service, of_model, of_problem

PYLOCK = b'lock-version = "1.0"\n'
OTHER = b'lock-version = "1.0"\n# another\n'
MUSL, GLIBC = "musllinux_1_2_x86_64", "manylinux_2_28_x86_64"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def operation(identifier: str = "abc-1") -> Said:
    body = schemas.OperationAnswer(id=identifier, kind="resolve", state="running", progress={})
    location = f"https://elsewhere.example.com/v1/operations/{identifier}"
    return of_model(body, 202, Location=location, **{"Retry-After": "0"})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("requests>=2\n# a comment\n")
    return tmp_path


@pytest.fixture(autouse=True)
def locks(service: Service) -> None:
    """Musl gets one lock, everybody else the other."""

    def resolve(asked: Asked) -> Said:
        body = schemas.ResolveBody.model_validate(asked.body)
        musl = isinstance(body.target, schemas.PlatformTarget) and body.target.platform == MUSL
        return of_model(resolve_answer(digest(OTHER if musl else PYLOCK)))

    service.says("POST", "/v1/resolve", resolve)
    for content in (PYLOCK, OTHER):
        service.says("GET", f"/v1/locks/{digest(content)}/pylock.toml", Said(content))


def asked_for(service: Service) -> list[schemas.ResolveBody]:
    return [schemas.ResolveBody.model_validate(asked.body) for asked in service.asked if asked.method == "POST"]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_lock_for_this_interpreter_is_written_as_it_came(ask: Run, service: Service, folder: Path) -> None:
    ran = ask("lock", "-r", "requirements.txt")
    assert (ran.code, ran.out) == (0, "")
    assert (folder / "pylock.toml").read_bytes() == PYLOCK
    assert left_in(folder) == ["pylock.toml", "requirements.txt"]
    assert digest(PYLOCK) in ran.err
    assert "resolved" in ran.err
    (body,) = asked_for(service)
    assert body.requirements == "requests>=2\n# a comment\n"
    assert (body.workload, body.constraints, body.indexes) == (None, None, None)
    assert isinstance(body.target, schemas.ReportedTarget)
    assert TargetEnvironment.from_markers(body.target.markers, body.target.libc).python == HERE


def test_what_is_not_named_of_the_target_is_this_machines(ask: Run, service: Service) -> None:
    assert ask("lock", "-r", "requirements.txt", "--platform", GLIBC).code == 0
    assert ask("lock", "-r", "requirements.txt", "--python", "3.14").code == 0
    assert ask("lock", "-r", "requirements.txt").code == 0
    platform, python, neither = (body.target for body in asked_for(service))
    assert platform == schemas.PlatformTarget(python=HERE, platform=GLIBC)
    assert isinstance(python, schemas.PlatformTarget)
    assert isinstance(neither, schemas.ReportedTarget)
    here = TargetEnvironment.from_markers(neither.markers, neither.libc)
    assert python.python == "3.14"
    assert TargetEnvironment.from_platform(HERE, python.platform) == here


def test_constraints_and_indexes_go_along(ask: Run, service: Service, folder: Path) -> None:
    (folder / "constraints.txt").write_bytes(b"\xef\xbb\xbfurllib3<3\n")
    flags = ("-c", "constraints.txt", "--index", "second", "--index", "first")
    assert ask("lock", "-r", "requirements.txt", *flags).code == 0
    (body,) = asked_for(service)
    assert (body.constraints, body.indexes) == ("urllib3<3\n", ["second", "first"])


def test_platforms_with_one_lock_get_one_file(ask: Run, service: Service, folder: Path) -> None:
    flags = ("--python", "3.12", "--platform", GLIBC, "--platform", "manylinux_2_28_aarch64", "--platform", GLIBC)
    assert ask("lock", "-r", "requirements.txt", *flags).code == 0
    assert len(asked_for(service)) == 2
    assert left_in(folder) == ["pylock.toml", "requirements.txt"]


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("pylock.toml", {f"pylock.{GLIBC}.toml": PYLOCK, f"pylock.{MUSL}.toml": OTHER}),
        ("pylock.dev.toml", {f"pylock.dev-{GLIBC}.toml": PYLOCK, f"pylock.dev-{MUSL}.toml": OTHER}),
    ],
)
def test_platforms_with_locks_of_their_own_get_files_of_their_own(
    ask: Run, folder: Path, output: str, names: dict[str, bytes]
) -> None:
    flags = ("--python", "3.12", "--platform", GLIBC, "--platform", MUSL, "-o", output)
    assert ask("lock", "-r", "requirements.txt", *flags).code == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.toml")} == names


def test_standard_output_takes_one_lock_and_nothing_else(ask: Run, service: Service, folder: Path) -> None:
    ran = ask("lock", "-r", "requirements.txt", "-o", "-")
    assert (ran.code, ran.out) == (0, PYLOCK.decode())
    assert left_in(folder) == ["requirements.txt"]
    service.asked.clear()
    ran = ask("lock", "-r", "requirements.txt", "-o", "-", "--platform", GLIBC, "--platform", MUSL)
    assert ran.code == 64
    assert service.asked == []


def test_an_operation_is_followed_where_the_service_is(ask: Run, service: Service, folder: Path) -> None:
    answer = of_model(resolve_answer(digest(PYLOCK)))
    service.says("POST", "/v1/resolve", operation())
    service.says("GET", "/v1/operations/abc-1", operation(), operation(), answer)
    assert ask("lock", "-r", "requirements.txt").code == 0
    assert service.paths.count("GET /v1/operations/abc-1") == 3
    assert (folder / "pylock.toml").read_bytes() == PYLOCK


def test_an_operation_that_never_ends_is_given_up(ask: Run, service: Service, folder: Path) -> None:
    service.says("POST", "/v1/resolve", operation())
    service.says("GET", "/v1/operations/abc-1", operation())
    ran = ask("lock", "-r", "requirements.txt", "--timeout", "0.5")
    assert ran.code == 69
    assert "not done within 0.5 s" in ran.err or "timed out" in ran.err
    assert left_in(folder) == ["requirements.txt"]


def test_an_operation_without_a_name_is_not_looked_for(ask: Run, service: Service) -> None:
    for location in ("", "/v1/locks", "/v1/operations/../pins"):
        body = schemas.OperationAnswer(id="x", kind="resolve", state="running", progress={})
        service.says("POST", "/v1/resolve", of_model(body, 202, Location=location))
        assert ask("lock", "-r", "requirements.txt").code == 69
    assert {asked.path for asked in service.asked} == {"/v1/resolve"}


def test_no_solution_is_told_whole_and_changes_nothing(ask: Run, service: Service, folder: Path) -> None:
    (folder / "pylock.toml").write_bytes(OTHER)
    explanation = "Because requests==2 needs urllib3<2\nand you require urllib3>2"
    service.says("POST", "/v1/resolve", of_problem(problems.NO_SOLUTION, explanation, hints=["loosen urllib3"]))
    ran = ask("lock", "-r", "requirements.txt")
    assert ran.code == 65
    for line in (*explanation.splitlines(), "loosen urllib3", "the-request-id"):
        assert line in ran.err
    assert (folder / "pylock.toml").read_bytes() == OTHER


def test_one_platform_without_an_answer_leaves_nothing_of_the_others(ask: Run, service: Service, folder: Path) -> None:
    refusal = of_problem(problems.BUILD_REQUIRED, "it has no wheel")
    service.says("POST", "/v1/resolve", of_model(resolve_answer(digest(PYLOCK))), refusal)
    ran = ask("lock", "-r", "requirements.txt", "--platform", GLIBC, "--platform", MUSL)
    assert ran.code == 65
    assert left_in(folder) == ["requirements.txt"]


def test_warnings_are_passed_on(ask: Run, service: Service) -> None:
    yanked = schemas.WarningAnswer(code="yanked", message="requests 2.34.2 was withdrawn\x1b[2J", package="requests")
    service.says("POST", "/v1/resolve", of_model(resolve_answer(digest(PYLOCK), warnings=[yanked])))
    ran = ask("lock", "-r", "requirements.txt")
    assert ran.code == 0
    assert "warning: yanked: requests 2.34.2 was withdrawn [2J" in ran.err


def test_other_bytes_than_the_digest_names_are_not_written(ask: Run, service: Service, folder: Path) -> None:
    service.says("GET", f"/v1/locks/{digest(PYLOCK)}/pylock.toml", Said(PYLOCK + b"\n"))
    assert ask("lock", "-r", "requirements.txt").code == 76
    assert left_in(folder) == ["requirements.txt"]


def test_a_digest_that_is_none_is_not_asked_for(ask: Run, service: Service) -> None:
    service.says("POST", "/v1/resolve", of_model(resolve_answer("../pins")))
    assert ask("lock", "-r", "requirements.txt").code == 69
    assert service.paths == ["POST /v1/resolve"]


def test_a_place_that_cannot_be_written(ask: Run, folder: Path) -> None:
    (folder / "taken").mkdir()
    for output in ("absent/pylock.toml", "taken"):
        ran = ask("lock", "-r", "requirements.txt", "-o", output)
        assert ran.code == 73
        assert output in ran.err
    assert left_in(folder) == ["requirements.txt", "taken"]


def test_the_file_is_replaced_at_once_with_the_modes_of_any_file(ask: Run, folder: Path) -> None:
    (folder / "pylock.toml").write_bytes(OTHER)
    before = (folder / "pylock.toml").stat().st_ino
    old = os.umask(0o027)
    try:
        assert ask("lock", "-r", "requirements.txt").code == 0
    finally:
        os.umask(old)
    after = (folder / "pylock.toml").stat()
    assert after.st_ino != before
    assert after.st_mode & 0o777 == 0o640


def test_requirements_that_are_no_text(ask: Run, service: Service, folder: Path) -> None:
    (folder / "requirements.txt").write_bytes(b"\xff\xfe")
    ran = ask("lock", "-r", "requirements.txt")
    assert ran.code == 65
    assert "UTF-8" in ran.err
    assert service.asked == []
