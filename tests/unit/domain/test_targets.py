import platform
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging import tags
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

from resolver.domain.errors import UnsupportedTarget
from resolver.domain.targets import PYTHONS, TargetEnvironment
from tests.unit.domain.strategies import targets


def target(python: str, platform: str) -> TargetEnvironment:
    return TargetEnvironment.from_platform(python, platform)


@pytest.mark.parametrize(
    ("python", "platform", "name"),
    [
        ("3.12", "musllinux_1_2_x86_64", "cp312-musllinux_1_2_x86_64"),
        ("3.12.4", "musllinux_1_2_amd64", "cp312-musllinux_1_2_x86_64"),
        ("3.12.4+", "musllinux_1_5_x86_64", "cp312-musllinux_1_2_x86_64"),
        ("3.15.0rc1", "musllinux_1_1_arm64", "cp315-musllinux_1_1_aarch64"),
        ("3.10", "manylinux_2_17_x86_64", "cp310-manylinux_2_17_x86_64"),
        ("3.10", "manylinux2014_x86_64", "cp310-manylinux_2_17_x86_64"),
        ("3.13", "manylinux_2_27_aarch64", "cp313-manylinux_2_17_aarch64"),
        ("3.13", "manylinux_2_28_aarch64", "cp313-manylinux_2_28_aarch64"),
        ("3.13", "manylinux_2_35_aarch64", "cp313-manylinux_2_34_aarch64"),
        ("3.13", "manylinux_2_99_aarch64", "cp313-manylinux_2_39_aarch64"),
    ],
)
def test_a_platform_snaps_to_its_class(python: str, platform: str, name: str) -> None:
    assert target(python, platform).name == name


@pytest.mark.parametrize(
    ("python", "platform", "reason"),
    [
        ("3.9", "manylinux_2_28_x86_64", "Python 3.9"),
        ("3", "manylinux_2_28_x86_64", "Python 3"),
        ("4.12", "manylinux_2_28_x86_64", "Python 4.12"),
        ("three", "manylinux_2_28_x86_64", "not one"),
        ("3." + "9" * 5000, "manylinux_2_28_x86_64", "not supported"),
        ("", "manylinux_2_28_x86_64", "not one"),
        ("3.12", "manylinux_2_16_x86_64", "no class for glibc 2.16"),
        ("3.12", "manylinux_3_0_x86_64", "no class for glibc 3.0"),
        ("3.12", "musllinux_1_0_x86_64", "no class for musl 1.0"),
        ("3.12", "musllinux_2_0_x86_64", "no class for musl 2.0"),
        ("3.12", "manylinux_2_28_s390x", "'s390x'"),
        ("3.12", "win_amd64", "not a manylinux or musllinux"),
        ("3.12", "macosx_14_0_arm64", "not a manylinux or musllinux"),
        ("3.12", "any", "not a manylinux or musllinux"),
        ("3.12", "", "not a manylinux or musllinux"),
        ("3.12", "manylinux_2_28_x86_64\n", "not a manylinux or musllinux"),
    ],
)
def test_what_is_not_supported_is_said_with_what_is(python: str, platform: str, reason: str) -> None:
    with pytest.raises(UnsupportedTarget) as caught:
        target(python, platform)
    assert reason in caught.value.reason
    assert "CPython 3.10 to 3.15" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("markers", "libc", "reason"),
    [
        (
            {"python_full_version": "3.12.1", "platform_machine": "x86_64", "sys_platform": "darwin"},
            "glibc 2.36",
            "darw",
        ),
        (
            {"python_full_version": "3.12.1", "platform_machine": "x86_64", "implementation_name": "pypy"},
            "musl 1.2",
            "py",
        ),
        ({"python_full_version": "3.12.1", "platform_machine": "x86_64"}, "uclibc 1.0", "neither"),
        ({"python_full_version": "3.12.1", "platform_machine": "x86_64"}, "", "neither"),
        ({"python_full_version": "3.12.1"}, "musl 1.2", "machine ''"),
        ({"platform_machine": "x86_64"}, "musl 1.2", "not one"),
    ],
)
def test_an_interpreter_that_is_not_supported(markers: dict[str, str], libc: str, reason: str) -> None:
    with pytest.raises(UnsupportedTarget) as caught:
        TargetEnvironment.from_markers(markers, libc)
    assert reason in caught.value.reason


@pytest.mark.parametrize("libc", ["glibc 2.36", "glibc 2.36-9+deb12u9", "glibc 2.36.1", "glibc 2.38"])
def test_this_interpreter_snaps_to_its_class(libc: str) -> None:
    markers = {
        "python_full_version": platform.python_version(),
        "python_version": "2.7",  # the full version is the one that counts
        "platform_machine": "x86_64",
        "platform_release": platform.release(),
        "sys_platform": "linux",
        "implementation_name": "cpython",
    }
    found = TargetEnvironment.from_markers(markers, libc)
    assert found.minor == sys.version_info[:2]
    assert found.platform == "manylinux_2_36_x86_64"


@given(targets())
def test_the_name_says_all(one: TargetEnvironment) -> None:
    assert TargetEnvironment.from_name(one.name) == one
    assert TargetEnvironment.from_platform(one.python, one.platform) == one
    libc = f"{one.libc} {one.rung[0]}.{one.rung[1]}"
    markers = {name: str(value) for name, value in one.markers.items()}
    assert TargetEnvironment.from_markers(markers, libc) == one
    assert str(one) == one.name


@given(st.text(), st.text())
def test_nothing_but_unsupported_target_comes_of_any_text(one: str, other: str) -> None:
    markers = {"python_full_version": "3.12.0", "platform_machine": one}
    attempts: list[Callable[[], TargetEnvironment]] = [
        lambda: TargetEnvironment.from_platform(one, other),
        lambda: TargetEnvironment.from_platform("3.12", other),
        lambda: TargetEnvironment.from_platform(one, "musllinux_1_2_x86_64"),
        lambda: TargetEnvironment.from_name(one),
        lambda: TargetEnvironment.from_markers(markers, other),
    ]
    for attempt in attempts:
        try:
            assert attempt().python in PYTHONS
        except UnsupportedTarget as error:
            str(error).encode()


@given(targets(), targets())
def test_the_marker_of_a_class_holds_for_it_and_for_no_other_python_or_machine(
    one: TargetEnvironment, other: TargetEnvironment
) -> None:
    same = (one.python, one.machine) == (other.python, other.machine)
    assert other.holds(Marker(one.marker)) is same


def test_markers_are_evaluated_for_the_class_not_for_this_interpreter() -> None:
    one = target("3.15", "musllinux_1_2_aarch64")
    assert one.holds(Marker("python_version == '3.15' and platform_machine == 'aarch64' and sys_platform == 'linux'"))
    assert one.holds(Marker("python_full_version == '3.15.0' and platform_release == ''"))
    assert one.holds(None)


def test_an_extra_counts_whatever_its_spelling() -> None:
    one = target("3.12", "musllinux_1_2_aarch64")
    marker = Requirement("a ; extra == 'Some.Extra'").marker
    assert one.holds(marker, "some_extra")
    assert not one.holds(marker)


@pytest.mark.parametrize("marker", ["'x' in extras", "dependency_groups == 'x'", "os_name ~= 'x'", "'a' == 'b'"])
def test_a_marker_that_has_no_value_is_a_value_error(marker: str) -> None:
    with pytest.raises(ValueError, match="the marker"):
        target("3.12", "musllinux_1_2_aarch64").holds(Marker(marker))


@pytest.mark.parametrize(
    ("platform", "wheel", "installs"),
    [
        ("manylinux_2_28_x86_64", "a-1-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("manylinux_2_28_x86_64", "a-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("manylinux_2_28_x86_64", "a-1-cp312-cp312-manylinux1_x86_64.whl", True),
        ("manylinux_2_28_x86_64", "a-1-cp37-abi3-manylinux2014_x86_64.whl", True),
        ("manylinux_2_28_x86_64", "a-1-py3-none-any.whl", True),
        ("manylinux_2_28_x86_64", "a-1-py2.py3-none-any.whl", True),
        ("manylinux_2_28_x86_64", "a-1-cp312-cp312-manylinux_2_31_x86_64.whl", False),
        ("manylinux_2_28_x86_64", "a-1-cp312-cp312-manylinux_2_28_aarch64.whl", False),
        ("manylinux_2_28_x86_64", "a-1-cp312-cp312-musllinux_1_2_x86_64.whl", False),
        ("manylinux_2_28_x86_64", "a-1-cp313-cp313-manylinux_2_28_x86_64.whl", False),
        ("manylinux_2_28_x86_64", "a-1-cp312-cp312t-manylinux_2_28_x86_64.whl", False),
        ("manylinux_2_28_x86_64", "a-1-cp313-abi3-manylinux_2_28_x86_64.whl", False),
        ("manylinux_2_28_x86_64", "a-1-py2-none-any.whl", False),
        ("manylinux_2_28_aarch64", "a-1-cp312-cp312-manylinux1_aarch64.whl", False),
        ("musllinux_1_2_x86_64", "a-1-cp312-cp312-musllinux_1_1_x86_64.whl", True),
        ("musllinux_1_1_x86_64", "a-1-cp312-cp312-musllinux_1_2_x86_64.whl", False),
        ("musllinux_1_2_x86_64", "a-1-cp312-cp312-manylinux_2_17_x86_64.whl", False),
    ],
)
def test_which_wheels_a_class_installs(platform: str, wheel: str, installs: bool) -> None:
    assert (not parse_wheel_filename(wheel)[3].isdisjoint(target("3.12", platform).tags)) is installs


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.machine() not in ("x86_64", "aarch64"),
    reason="compares with what packaging says of a glibc machine",
)
def test_what_a_class_installs_this_interpreter_installs_in_the_same_order() -> None:
    major, minor = platform.libc_ver()[1].split(".")[:2]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    ours = target(python, f"manylinux_{major}_{minor}_{platform.machine()}").tags
    theirs = [tag for tag in tags.sys_tags() if tag in set(ours)]
    assert set(ours) == set(theirs)
    # A plain `linux_…` wheel, which says nothing of its libc, comes first for packaging and last for uv.
    plain = f"linux_{platform.machine()}"
    assert [tag for tag in ours if tag.platform != plain] == [tag for tag in theirs if tag.platform != plain]
