import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from resolver.domain.keys import ResolutionKey, resolution_key
from resolver.domain.requests import Index, Policy, RequirementLine, ResolveRequest, Workload
from resolver.domain.requirements import parse_constraints, parse_requirements
from resolver.domain.targets import TargetEnvironment
from tests.unit.domain.strategies import requirement_lines

OPEN = Index("open", "https://user:hunter2@packages.example.com/simple")
OTHER = Index("other", "https://other.example.com/simple")
CLOSED = Index("closed", "https://closed.example.com/simple", frozenset({"shop", "bank"}))
TARGET = TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64")
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_28_aarch64"]


def request(requirements: str = "a>=1\nb", **changes: object) -> ResolveRequest:
    base = ResolveRequest(parse_requirements(requirements), TARGET, (OPEN,))
    return replace(base, **changes)  # type: ignore[arg-type]  # each test names fields of ResolveRequest


def key(requirements: str = "a>=1\nb", **changes: object) -> ResolutionKey:
    return resolution_key(request(requirements, **changes), PLATFORMS)


def test_a_key_is_a_sha256_that_stays_what_it_is() -> None:
    # Stored locks are found by their keys: a change here needs another schema number, and loses them all.
    assert key() == "3212ed017158b44e5b0a42e11d159f6a3e88a30a7c7449daa9941226f29498e1"


def test_spelling_does_not_count() -> None:
    same = {
        key("Foo.Bar [X_y,Z] >= 1 , < 2 ; python_version<'3.13'\nb"),
        key('# why\nb # what\nfoo-bar[z,x-y]<2,>=1;python_version < "3.13"\n'),
        key("b\nFOO_BAR[z, x.y] \\\n >=1,<2 ; (python_version < '3.13')\nb"),
    }
    assert len(same) == 1


@given(st.lists(requirement_lines, max_size=5), st.randoms(use_true_random=False))
def test_requirements_and_constraints_are_sets(lines: list[RequirementLine], chance: random.Random) -> None:
    other = [*lines, *lines[:2]]
    chance.shuffle(other)
    assert key(requirements="", constraints=tuple(lines)) == key(requirements="", constraints=tuple(other))
    once = resolution_key(ResolveRequest(tuple(lines), TARGET, (OPEN,)), PLATFORMS)
    assert once == resolution_key(ResolveRequest(tuple(other), TARGET, (OPEN,)), PLATFORMS)


@given(st.permutations([OPEN, OTHER, CLOSED]), st.permutations([OPEN, OTHER, CLOSED]))
def test_the_order_of_indexes_counts(one: list[Index], other: list[Index]) -> None:
    assert (key(indexes=tuple(one)) == key(indexes=tuple(other))) is (one == other)


@given(st.integers(0, 40), st.text(max_size=8), st.text(max_size=8))
def test_patch_version_and_kernel_do_not_count(patch: int, release: str, version: str) -> None:
    reported = TargetEnvironment.from_markers(
        {
            "python_full_version": f"3.12.{patch}",
            "platform_machine": "x86_64",
            "platform_release": release,
            "platform_version": version,
        },
        "glibc 2.28",
    )
    assert key(target=reported) == key()


def test_target_classes_of_one_python_meet_at_one_key() -> None:
    for platform in ["musllinux_1_2_x86_64", "manylinux_2_39_aarch64"]:
        assert key(target=TargetEnvironment.from_platform("3.12", platform)) == key()


def test_the_workload_does_not_count() -> None:
    assert key(workload=Workload("shop", "checkout", "r1"), namespace="shop") == key()


def test_all_that_counts_makes_another_key() -> None:
    newer = datetime(2026, 11, 1, tzinfo=UTC)
    keys = [
        key(),
        key("a>=2\nb"),
        key("a>=1"),
        key("a[x]>=1\nb"),
        key(f"a>=1 --hash=sha256:{'a' * 64}\nb"),
        key(constraints=parse_constraints("a>=1")),
        key("b", constraints=parse_constraints("a>=1")),
        key(indexes=(OTHER,)),
        key(indexes=(OPEN, OTHER)),
        key(target=TargetEnvironment.from_platform("3.13", "manylinux_2_28_x86_64")),
        key(policy=Policy(prereleases=True)),
        key(policy=Policy(exclude_newer=newer)),
        key(policy=Policy(exclude_newer=newer + timedelta(seconds=1))),
        resolution_key(request(), []),
        resolution_key(request(), ["musllinux_1_2_x86_64"]),
    ]
    assert len(set(keys)) == len(keys)


def test_platforms_are_a_set_and_a_time_is_one_in_any_zone() -> None:
    assert resolution_key(request(), [*reversed(PLATFORMS), PLATFORMS[0]]) == key()
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    elsewhere = noon.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert key(policy=Policy(exclude_newer=noon)) == key(policy=Policy(exclude_newer=elsewhere))


def test_the_namespace_counts_where_an_index_is_not_open_to_all() -> None:
    assert key(namespace="shop") == key(namespace="bank")
    shop, bank = (key(indexes=(OPEN, CLOSED), namespace=namespace) for namespace in ["shop", "bank"])
    assert shop != bank
    assert key(indexes=(OPEN, CLOSED), workload=Workload("shop", "checkout")) == shop


def test_nothing_of_an_indexs_url_counts() -> None:
    assert key(indexes=(replace(OPEN, url="https://moved.example.com"),)) == key()
    assert "hunter2" not in json.dumps(key()) + repr(request())
