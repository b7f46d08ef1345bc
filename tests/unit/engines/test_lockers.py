"""What holds for both engines, on the real ones."""

import asyncio
import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from resolver.domain.errors import EngineFailed, IndexUnavailable, LockstepError, TimedOut
from resolver.domain.outcomes import NoSolution
from resolver.domain.ports import Locker
from resolver.domain.requests import Index, Policy
from resolver.engines.pip import PipLocker
from resolver.engines.uv import UvLocker
from tests.support.index import Fault, PackageIndex
from tests.support.wheels import make_sdist, make_wheel
from tests.unit.engines.conftest import HERE, Leftovers, ask, versions, wheels

CP = "cp" + HERE.replace(".", "")
PASSWORD = "hunter2-opensesame"
SIGNATURE = "c2lnbmVkLWJ5LXVz"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def test_the_newest_that_fits_one_wheel_each(locker: Locker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0"))
    name, content = make_wheel("foo", "2.0", requires=["bar<3", "win ; sys_platform == 'win32'"])
    index.add(name, content)
    for tag in (f"{CP}-{CP}-manylinux_2_17_x86_64", f"{CP}-{CP}-manylinux_2_28_x86_64", "py3-none-any"):
        index.add(*make_wheel("bar", "2.5", tag=tag))
    index.add(*make_wheel("bar", "2.6", tag=f"{CP}-{CP}-manylinux_2_31_x86_64"))
    index.add(*make_wheel("bar", "3.0"))
    answer = await locker.lock(ask(index, "foo"))
    assert isinstance(answer, Pylock)
    assert wheels(answer) == [f"bar-2.5-{CP}-{CP}-manylinux_2_28_x86_64.whl", "foo-2.0-py3-none-any.whl"]
    [foo] = answer.packages[1].wheels or ()
    assert foo.url == f"{index.url.removesuffix('/simple')}/files/{name}"
    assert f"sha256:{foo.hashes['sha256']}" == digest(content)
    assert (answer.created_by, answer.tool) == ("lockstep", None)


async def test_an_answer_does_not_change_when_an_index_adds_a_wheel_of_another_kind(
    locker: Locker, index: PackageIndex
) -> None:
    index.add(*make_wheel("foo", "1.0", tag=f"{CP}-{CP}-manylinux_2_28_x86_64"))
    before = await locker.lock(ask(index, "foo"))
    index.add(*make_wheel("foo", "1.0", tag=f"{CP}-{CP}-manylinux_2_17_x86_64"))
    index.add(*make_wheel("foo", "1.0", tag=f"{CP}-{CP}-win_amd64"))
    assert await locker.lock(ask(index, "foo")) == before


async def test_nothing_asked_is_nothing_locked_and_nobody_asked(tmp_path: Path, index: PackageIndex) -> None:
    nowhere = UvLocker(tmp_path, executable=tmp_path / "no-uv")
    for question in (ask(index), ask(index, "foo ; sys_platform == 'win32'")):
        assert versions(await nowhere.lock(question)) == {}


async def test_constraints_and_held_versions_bound(locker: Locker, index: PackageIndex) -> None:
    for version in ("1.0", "2.0", "3.0", "4.0"):
        index.add(*make_wheel("foo", version))
    held = [(canonicalize_name("foo"), SpecifierSet("<=2.5"))]
    assert versions(await locker.lock(ask(index, "foo", constraints=["foo<4"]))) == {"foo": "3.0"}
    assert versions(await locker.lock(ask(index, "foo", constraints=["foo<4"], held=held))) == {"foo": "2.0"}


async def test_pre_releases_by_policy(locker: Locker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0"))
    index.add(*make_wheel("foo", "2.0b1"))
    assert versions(await locker.lock(ask(index, "foo"))) == {"foo": "1.0"}
    assert versions(await locker.lock(ask(index, "foo", policy=Policy(prereleases=True)))) == {"foo": "2.0b1"}


async def test_nothing_newer_than_asked_for(locker: Locker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0"), upload_time=datetime(2024, 1, 1, tzinfo=UTC))
    index.add(*make_wheel("foo", "2.0"), upload_time=datetime(2025, 1, 1, tzinfo=UTC))
    policy = Policy(exclude_newer=datetime(2024, 6, 1, tzinfo=UTC))
    assert versions(await locker.lock(ask(index, "foo", policy=policy))) == {"foo": "1.0"}


async def test_an_index_without_upload_times_is_said_to_be_one(locker: Locker) -> None:
    with PackageIndex(upload_times=False) as index:
        index.add(*make_wheel("foo", "1.0"))
        answer = await locker.lock(ask(index, "foo", policy=Policy(exclude_newer=datetime(2025, 1, 1, tzinfo=UTC))))
    assert isinstance(answer, NoSolution)
    assert any("upload times (PEP 700)" in hint for hint in answer.hints)


async def test_musl_1_1_gets_no_wheel_of_a_newer_musl(locker: Locker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0", tag=f"{CP}-{CP}-musllinux_1_1_x86_64"))
    for version in ("2.0", "3.0"):
        index.add(*make_wheel("foo", version, tag=f"{CP}-{CP}-musllinux_1_2_x86_64"))
    old, new = "musllinux_1_1_x86_64", "musllinux_1_2_x86_64"
    assert versions(await locker.lock(ask(index, "foo", platform=new))) == {"foo": "3.0"}
    assert versions(await locker.lock(ask(index, "foo", platform=old))) == {"foo": "1.0"}
    assert isinstance(await locker.lock(ask(index, "foo>1", platform=old)), NoSolution)


async def test_only_a_version_with_a_hash_asked_for(locker: Locker, index: PackageIndex) -> None:
    name, content = make_wheel("foo", "1.0")
    index.add(name, content)
    index.add(*make_wheel("foo", "2.0"))
    answer = await locker.lock(ask(index, "foo", hashes={"foo": {digest(content), digest(b"its sdist")}}))
    assert wheels(answer) == [name]
    refused = await locker.lock(ask(index, "bar", "foo==2.0", hashes={"foo==2.0": {digest(content)}}))
    assert isinstance(refused, NoSolution)


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        (["absent"], "absent"),
        (["foo==9"], "foo==9"),
        (["foo<2", "foo>=2"], "foo>=2"),
        (["needs-more-bar"], "bar"),
        (["source"], "source"),
        (["yanked"], "yanked"),
    ],
)
async def test_no_solution_is_explained(
    locker: Locker, index: PackageIndex, requirements: list[str], words: str
) -> None:
    for version in ("1.0", "2.0"):
        index.add(*make_wheel("foo", version))
    index.add(*make_wheel("bar", "1.0"))
    index.add(*make_wheel("needs-more-bar", "1.0", requires=["bar>7"]))
    index.add(*make_sdist("source", "1.0"))
    index.add(*make_wheel("yanked", "1.0"), yanked="broken")
    answer = await locker.lock(ask(index, *requirements))
    assert isinstance(answer, NoSolution)
    assert words in answer.explanation


FAULTS = [(where, kind) for where in ("/simple/", ".metadata") for kind in ("500", "garbage", "half", "hang", "refuse")]
FAULTS += [(".metadata", "404"), (".metadata", "wrong-bytes")]  # of a page: no such project; a page still


@pytest.mark.parametrize(("where", "kind"), FAULTS)
async def test_an_index_that_fails(
    locker: Locker, leftovers: Leftovers, index: PackageIndex, where: str, kind: Fault
) -> None:
    index.add(*make_wheel("foo", "1.0"))
    index.fault(where, kind)
    with pytest.raises(IndexUnavailable) as raised:
        await locker.lock(ask(index, "foo"))
    assert raised.value.index == "main"
    assert raised.value.about.startswith("foo")
    assert raised.value.cause
    leftovers.assert_none()
    index.clear_faults()
    assert versions(await locker.lock(ask(index, "foo"))) == {"foo": "1.0"}


@pytest.mark.parametrize(
    ("status", "headers"),
    [(403, {}), (429, {}), (503, {}), (200, {"Content-Type": "text/plain"}), (302, {"Location": "/simple/foo/"})],
)
async def test_an_index_that_answers_otherwise(
    locker: Locker, index: PackageIndex, status: int, headers: dict[str, str]
) -> None:
    index.add(*make_wheel("foo", "1.0"))
    index.answer("/simple/", status, b"hello", headers)
    with pytest.raises(IndexUnavailable, match=r"index main, (foo|its pages)"):
        await locker.lock(ask(index, "foo"))


async def test_an_index_that_is_not_there(locker: Locker) -> None:
    with PackageIndex() as index:
        question = ask(index, "foo")
    with pytest.raises(IndexUnavailable, match="index main, foo"):
        await locker.lock(question)


@pytest.mark.parametrize("credentials", ["", "someone:wrong@"])
async def test_an_index_that_does_not_let_us_in_is_no_proof_of_absence(locker: Locker, credentials: str) -> None:
    with PackageIndex(auth=("someone", PASSWORD)) as index:
        index.add(*make_wheel("foo", "1.0"))
        url = index.url.replace("://", f"://{credentials}")
        with pytest.raises(IndexUnavailable, match="index private"):
            await locker.lock(ask([Index("private", url)], "foo"))


async def test_a_failing_page_is_no_reason_to_take_another_version(locker: Locker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "2.0", requires=["bar"]))
    index.add(*make_wheel("foo", "1.0"))
    index.add(*make_wheel("bar", "1.0"))
    index.fault("/simple/bar", "500")
    with pytest.raises(IndexUnavailable, match="bar"):
        await locker.lock(ask(index, "foo"))


@pytest.mark.parametrize("kind", [None, "500", "404", "garbage", "half", "refuse", "wrong-bytes"])
async def test_no_credential_comes_out(
    locker: Locker, tmp_path: Path, leftovers: Leftovers, kind: Fault | None
) -> None:
    with PackageIndex(auth=("someone", PASSWORD)) as index:
        index.add(*make_wheel("foo", "1.0", requires=["bar"]), query=f"signature={SIGNATURE}")
        index.add(*make_wheel("bar", "1.0"), metadata=False, query=f"signature={SIGNATURE}")
        if kind is not None:
            index.fault("bar", kind)
        try:
            outcome: object = await locker.lock(ask(index, "foo"))
        except LockstepError as error:
            outcome = [str(error), vars(error), error.__cause__]
    assert any(SIGNATURE in path for path in index.requests)
    assert PASSWORD not in repr(outcome)
    assert SIGNATURE not in repr(outcome)
    leftovers.assert_none()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in kept


async def test_a_hanging_engine_is_killed_at_its_time(
    tmp_path: Path, leftovers: Leftovers, index: PackageIndex
) -> None:
    index.add(*make_wheel("foo", "1.0"))
    index.fault("/simple/", "hang")
    for hanging in _patient(tmp_path, timeout=1.5):
        with pytest.raises(TimedOut):
            await hanging.lock(ask(index, "foo"))
        leftovers.assert_none()


async def test_the_time_is_for_all_attempts_together(leftovers: Leftovers, index: PackageIndex, tmp_path: Path) -> None:
    versions_without_end = (make_wheel("foo", f"{n}", tag=f"{CP}-{CP}-musllinux_1_2_x86_64") for n in range(30))
    for filename, content in versions_without_end:
        index.add(filename, content)
    hasty = UvLocker(tmp_path, timeout=0.2)
    with pytest.raises(TimedOut):
        await hasty.lock(ask(index, "foo", platform="musllinux_1_1_x86_64"))
    leftovers.assert_none()


async def test_a_caller_that_goes_away_takes_its_engine_along(tmp_path: Path, leftovers: Leftovers) -> None:
    with PackageIndex(auth=("someone", PASSWORD)) as index:
        index.add(*make_wheel("foo", "1.0"))
        index.fault("/simple/", "hang")
        for hanging in _patient(tmp_path, timeout=60):
            seen = len(index.requests)
            task = asyncio.create_task(hanging.lock(ask(index, "foo")))
            async with asyncio.timeout(30):
                while len(index.requests) == seen:
                    await asyncio.sleep(0.01)
            running = leftovers.processes()
            assert running
            assert all(PASSWORD not in argument for argv in running for argument in argv)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            leftovers.assert_none()


async def test_an_engine_that_wants_too_much_memory(tmp_path: Path, leftovers: Leftovers, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0"))
    for starving in _patient(tmp_path, timeout=60, memory=40 * 1024**2):
        with pytest.raises(EngineFailed):
            await starving.lock(ask(index, "foo"))
        leftovers.assert_none()


async def test_many_at_once_share_a_cache(locker: Locker, leftovers: Leftovers, index: PackageIndex) -> None:
    for number in range(8):
        index.add(*make_wheel(f"package{number}", "1.0", requires=[f"package{number + 1}"] if number < 7 else []))
    answers = await asyncio.gather(*(locker.lock(ask(index, "package0")) for _ in range(6)))
    assert len(versions(answers[0])) == 8
    assert all(answer == answers[0] for answer in answers)
    leftovers.assert_none()


def _patient(tmp_path: Path, timeout: float, memory: int = 4 * 1024**3) -> list[Locker]:
    """Both engines, that wait longer for an index than they may run."""
    return [
        UvLocker(tmp_path / "uv-cache", timeout=timeout, memory=memory, http_timeout=60),
        PipLocker(
            {HERE: Path(sys.executable)}, tmp_path / "pip-cache", timeout=timeout, memory=memory, http_timeout=60
        ),
    ]
