import hashlib
from itertools import cycle
from pathlib import Path

import pytest

from resolver.domain.errors import IndexUnavailable, InvalidRequest
from resolver.domain.outcomes import NoSolution
from resolver.domain.requests import Index
from resolver.domain.targets import LADDER, MACHINES, PYTHONS, TargetEnvironment
from resolver.engines.indexes import cache_folder
from resolver.engines.narrowing import ROUNDS
from resolver.engines.uv import UvLocker
from tests.support.index import PackageIndex
from tests.support.wheels import make_wheel
from tests.unit.engines.conftest import Leftovers, ask, versions, wheels

# Every machine and rung, with the Pythons in turn.
TARGETS = [
    TargetEnvironment.from_platform(python, f"{family}_{rung[0]}_{rung[1]}_{machine}")
    for python, (machine, family, rung) in zip(
        cycle(PYTHONS),
        [
            (machine, family, rung)
            for machine in MACHINES
            for libc, family in (("glibc", "manylinux"), ("musl", "musllinux"))
            for rung in LADDER[libc]
        ],
        strict=False,
    )
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
async def test_targets_are_resolved_whatever_runs_here(
    uv: UvLocker, index: PackageIndex, target: TargetEnvironment
) -> None:
    interpreter = f"cp{target.python.replace('.', '')}"
    others = f"other ; python_full_version != '{target.python}.0' or platform_machine != '{target.machine}'"
    index.add(*make_wheel("foo", "1.0", requires=[f"matches ; {target.marker}", others]))
    index.add(*make_wheel("matches", "1.0", tag=f"{interpreter}-{interpreter}-{target.platform}"))
    answer = await uv.lock(ask(index, "foo", python=target.python, platform=target.platform))
    assert wheels(answer) == [
        "foo-1.0-py3-none-any.whl",
        f"matches-1.0-{interpreter}-{interpreter}-{target.platform}.whl",
    ]


async def test_markers_see_the_base_of_the_class(uv: UvLocker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0", requires=["a ; python_full_version == '3.13.0'", "b ; platform_release != ''"]))
    index.add(*make_wheel("a", "1.0"))
    index.add(*make_wheel("b", "1.0"))
    assert versions(await uv.lock(ask(index, "foo", python="3.13"))) == {"a": "1.0", "foo": "1.0"}


async def test_the_first_index_that_has_a_project_serves_it(uv: UvLocker) -> None:
    with PackageIndex() as one, PackageIndex() as two, PackageIndex() as three:
        one.add(*make_wheel("a", "1.0"))
        for index in (two, three):
            index.add(*make_wheel("a", "9.0"))
        two.add(*make_wheel("b", "2.0"))
        for index in (one, two):
            index.add(*make_wheel("c", "1.0" if index is one else "9.0"))
        three.add(*make_wheel("b", "9.0"))
        three.add(*make_wheel("d", "3.0"))
        indexes = [Index("one", one.url), Index("two", two.url), Index("three", three.url)]
        assert versions(await uv.lock(ask(indexes, "a", "b", "d"))) == {"a": "1.0", "b": "2.0", "d": "3.0"}
        assert versions(await uv.lock(ask(indexes[::-1], "a", "b", "c"))) == {"a": "9.0", "b": "9.0", "c": "9.0"}


@pytest.mark.parametrize("failing", ["unauthenticated", "500", "garbage", "refuse"])
async def test_no_other_index_stands_in_for_one_that_fails(uv: UvLocker, failing: str) -> None:
    with PackageIndex(auth=("someone", "hunter2")) as private, PackageIndex() as public:
        for index in (private, public):
            index.add(*make_wheel("internal", "1.0"))
        if failing == "unauthenticated":
            url = private.url
        else:
            url = private.url_with_auth
            private.fault("/simple/", failing)  # type: ignore[arg-type] # the parameters above
        with pytest.raises(IndexUnavailable) as raised:
            await uv.lock(ask([Index("private", url), Index("public", public.url)], "internal"))
    assert raised.value.index == "private"


async def test_indexes_of_one_url_do_not_share_what_was_cached(uv: UvLocker, tmp_path: Path) -> None:
    cache = tmp_path / "uv-cache"
    with PackageIndex(auth=("someone", "hunter2")) as index:
        index.add(*make_wheel("internal", "1.0"))
        allowed, stranger = Index("theirs", index.url_with_auth), Index("mine", index.url)
        assert versions(await uv.lock(ask([allowed], "internal"))) == {"internal": "1.0"}
        folders = {path.name for path in cache.iterdir()}
        with pytest.raises(IndexUnavailable):
            await uv.lock(ask([stranger], "internal"))
        assert {path.name for path in cache.iterdir()} > folders


async def test_without_an_index_there_is_no_question(uv: UvLocker) -> None:
    with pytest.raises(InvalidRequest, match="no index"):
        await uv.lock(ask([], "foo"))


async def test_another_wheel_of_the_version_may_have_the_hash(uv: UvLocker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0", tag="cp312-cp312-manylinux_2_28_x86_64"))
    name, content = make_wheel("foo", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    index.add(name, content)
    hashes = {"foo": {f"sha256:{hashlib.sha256(content).hexdigest()}"}}
    assert wheels(await uv.lock(ask(index, "foo", python="3.12", hashes=hashes))) == [name]


async def test_no_wheel_with_a_hash_names_the_line(uv: UvLocker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0"))
    index.add(*make_wheel("bar", "1.0"))
    answer = await uv.lock(ask(index, "bar", "foo", hashes={"foo": {"sha256:" + "0" * 64}}))
    assert isinstance(answer, NoSolution)
    assert "foo 1.0 was left out" in answer.explanation
    assert "requirements, line 2" in answer.explanation
    assert any("requirements, line 2" in hint for hint in answer.hints)


async def test_leaving_out_versions_has_an_end(uv: UvLocker, index: PackageIndex) -> None:
    for version in range(ROUNDS + 5):
        index.add(*make_wheel("foo", f"{version}", tag="cp312-cp312-musllinux_1_2_x86_64"))
    answer = await uv.lock(ask(index, "foo", python="3.12", platform="musllinux_1_1_x86_64"))
    assert isinstance(answer, NoSolution)
    assert f"in {ROUNDS} attempts" in answer.explanation
    assert answer.explanation.count("was left out") == ROUNDS
    assert len(answer.hints) == 1


async def test_hints_are_the_engine_s_own(uv: UvLocker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0", tag="cp312-cp312-win_amd64"))
    answer = await uv.lock(ask(index, "foo", python="3.12"))
    assert isinstance(answer, NoSolution)
    assert "no wheels with a matching platform tag" in answer.explanation
    assert [hint for hint in answer.hints if "win_amd64" in hint]


async def test_it_is_prepared_without_an_index_and_locks_as_before(
    uv: UvLocker, index: PackageIndex, leftovers: Leftovers, tmp_path: Path
) -> None:
    everyones, shops = Index("main", index.url_with_auth), Index("shops", index.url, frozenset({"shop"}))
    await uv.prepare([everyones, shops])
    assert index.requests == []
    leftovers.assert_none()
    prepared = cache_folder(tmp_path / "uv-cache", [everyones])
    assert [path.name for path in prepared.rglob("interpreter-*")], "the interpreter is remembered"
    index.add(*make_wheel("foo", "1.0"))
    assert versions(await uv.lock(ask(index, "foo"))) == {"foo": "1.0"}
    await uv.prepare([shops])
    assert [path for path in (tmp_path / "uv-cache").iterdir() if path != prepared] == []
