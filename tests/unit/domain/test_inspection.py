from collections.abc import Mapping, Sequence

import pytest
from packaging.pylock import Pylock
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from resolver.domain.inspection import MAX_PATHS, Graph, activated, diff, requirements_text, why
from resolver.domain.requirements import parse_requirements
from resolver.domain.targets import TargetEnvironment

MUSL = TargetEnvironment.from_platform("3.12", "musllinux_1_2_x86_64")
ARM = TargetEnvironment.from_platform("3.12", "manylinux_2_28_aarch64")

A = canonicalize_name("a")

Requires = Mapping[str, Sequence[str]]


def package(name: str, version: str, requires: Sequence[str] = (), marker: str | None = None) -> Mapping[str, object]:
    wheels = [
        {
            "name": f"{name.replace('-', '_')}-{version}-{tag}-none-any.whl",
            "url": f"https://packages.example.com/{name}",
            "hashes": {"sha256": digit * 64},
        }
        for tag, digit in [("py3", "b"), ("py2.py3", "a")]
    ]
    tool = {"lockstep": {"requires": list(requires)}}
    body = {"name": name, "version": version, "wheels": wheels, "tool": tool}
    return body | ({"marker": marker} if marker else {})


def lock(requirements: Sequence[str], *packages: Mapping[str, object]) -> Pylock:
    tool = {"lockstep": {"requirements": list(requirements)}}
    return Pylock.from_dict({"lock-version": "1.0", "created-by": "lockstep", "packages": list(packages), "tool": tool})


def graph(requirements: Sequence[str], requires: Requires, target: TargetEnvironment = MUSL) -> Graph:
    named = {canonicalize_name(name): texts for name, texts in requires.items()}
    return activated([Requirement(text) for text in requirements], named, target)


def chains(pylock: Pylock, name: str, *targets: TargetEnvironment) -> list[list[str]]:
    found = why(pylock, canonicalize_name(name), targets or (MUSL,))
    assert not found.truncated
    assert all(path[-1].name == name for path in found.paths)
    return [[step.requirement for step in path] for path in found.paths]


def names(*texts: str) -> frozenset[NormalizedName]:
    return frozenset(canonicalize_name(text) for text in texts)


# diff


def test_a_diff_has_what_came_went_and_changed_in_order() -> None:
    before = lock([], package("a", "1"), package("b", "1"), package("d", "1"), package("c", "1.0"))
    after = lock([], package("e", "1"), package("b", "2"), package("a", "0.9"), package("c", "1.0"))
    found = diff(before, after)
    assert [(name, str(version)) for name, version in found.added] == [("e", "1")]
    assert [(name, str(version)) for name, version in found.removed] == [("d", "1")]
    assert [(name, str(old), str(new)) for name, old, new in found.changed] == [("a", "1", "0.9"), ("b", "1", "2")]
    assert diff(after, after) == diff(before, before)


# activated


def test_extras_travel_along_requirements() -> None:
    found = graph(
        ["Web[standard]"],
        {
            "web": ["core>=1", "server[standard]>=0.12 ; extra == 'standard'", "tests ; extra == 'test'"],
            "server": ["loop ; extra == 'standard'", "core"],
            "core": [],
            "loop": [],
            "tests": [],
        },
    )
    assert found.extras == {
        "web": names("standard"),
        "server": names("standard"),
        "core": names(),
        "loop": names(),
    }
    assert found.dependencies == {
        "web": names("core", "server"),
        "server": names("loop", "core"),
        "core": names(),
        "loop": names(),
    }
    assert (found.missing, found.unread) == (frozenset(), ())


def test_an_extra_of_all_extras_asks_a_package_for_itself() -> None:
    found = graph(
        ["pkg[all]"],
        {
            "pkg": ["pkg[a, B_b] ; extra == 'all'", "x ; extra == 'a'", "y[deep] ; extra == 'b-b'", "z ; extra == 'c'"],
            "x": [],
            "y": ["x>=1; extra=='deep'"],
            "z": [],
        },
    )
    assert found.extras == {"pkg": names("all", "a", "b-b"), "x": names(), "y": names("deep")}
    assert found.dependencies == {"pkg": names("x", "y"), "x": names(), "y": names("x")}


def test_an_extra_that_is_asked_for_later_counts_too() -> None:
    found = graph(["a", "b"], {"a": ["c ; extra == 'x'"], "b": ["a[x]"], "c": []})
    assert found.dependencies[A] == names("c")
    assert found.extras[A] == names("x")


def test_circles_end() -> None:
    found = graph(["a"], {"a": ["b[x]"], "b": ["a[y] ; extra == 'x'"], "c": []})
    assert found.dependencies == {"a": names("b"), "b": names("a")}
    assert found.extras == {"a": names("y"), "b": names("x")}


def test_markers_are_those_of_the_target() -> None:
    requires = {"a": ["b ; platform_machine == 'aarch64'", "c ; python_version < '3.12'"], "b": [], "c": []}
    assert graph(["a"], requires, MUSL).dependencies[A] == names()
    assert graph(["a"], requires, ARM).dependencies[A] == names("b")
    assert graph(["a ; platform_machine == 'aarch64'"], requires, MUSL).dependencies == {}


def test_what_does_not_parse_is_a_fact_and_no_failure() -> None:
    broken = ["b>=1.*", "", "c ; python_version ~= 'x'", "c ; 'x' in extras", "c==" + "9" * 5000, "c ; " + "(" * 5000]
    found = graph(["a"], {"a": [*broken, "b (>=1)"], "b": [], "c": []})
    assert found.dependencies[A] == names("b")
    assert [(unread.package, unread.text) for unread in found.unread] == [("a", text) for text in broken]
    assert all(unread.reason for unread in found.unread)


def test_what_has_no_metadata_is_missing() -> None:
    found = graph(["a", "gone"], {"a": ["Away>=1"]})
    assert found.missing == names("gone", "away")
    assert found.dependencies == {"a": names("away")}


# why


def test_every_path_with_the_specifiers_on_the_way() -> None:
    pylock = lock(
        ["c<3", "web[standard]>=1"],
        package("web", "1", ["server[standard]>=0.12 ; extra == 'standard'", "c >= 1, != 2"]),
        package("server", "1", ["C~=2.1 ; extra == 'standard'", "c>=9 ; extra == 'other'"]),
        package("c", "2.5"),
    )
    assert chains(pylock, "c") == [
        ["c<3"],
        ["web[standard]>=1", "c!=2,>=1"],
        ["web[standard]>=1", 'server[standard]>=0.12 ; extra == "standard"', 'c~=2.1 ; extra == "standard"'],
    ]
    assert chains(pylock, "web") == [["web[standard]>=1"]]


def test_a_path_goes_only_through_extras_that_were_asked_for_on_it() -> None:
    pylock = lock(["a", "b"], package("a", "1", ["x ; extra == 'e'"]), package("b", "1", ["a[e]"]), package("x", "1"))
    assert chains(pylock, "x") == [["b", "a[e]", 'x ; extra == "e"']]


def test_a_package_that_asks_itself_is_a_step() -> None:
    pylock = lock(["pkg[all]"], package("pkg", "1", ["pkg[a] ; extra == 'all'", "x ; extra == 'a'"]), package("x", "1"))
    assert chains(pylock, "x") == [["pkg[all]", 'pkg[a] ; extra == "all"', 'x ; extra == "a"']]


def test_paths_have_no_circles() -> None:
    pylock = lock(
        ["a"],
        package("a", "1", ["b"]),
        package("b", "1", ["a", "c", "b"]),
        package("c", "1", ["b", "d"]),
        package("d", "1", ["a"]),
    )
    assert chains(pylock, "d") == [["a", "b", "c", "d"]]


def test_paths_are_those_of_the_targets() -> None:
    pylock = lock(
        ["a", "b ; platform_machine == 'aarch64'", "c --hash=sha256:" + "a" * 64],
        package("a", "1", ["x ; platform_machine == 'aarch64'"]),
        package("b", "1", ["x"], marker="platform_machine == 'aarch64'"),
        package("c", "1", ["x"]),
        package("x", "1"),
    )
    assert chains(pylock, "x", MUSL) == [["c", "x"]]
    arm = [["a", 'x ; platform_machine == "aarch64"'], ['b ; platform_machine == "aarch64"', "x"], ["c", "x"]]
    assert sorted(chains(pylock, "x", ARM)) == arm
    assert sorted(chains(pylock, "x", MUSL, ARM)) == arm
    assert chains(pylock, "b", MUSL) == []


def test_no_path_to_what_is_not_there() -> None:
    pylock = lock(["a"], package("a", "1", ["gone"]))
    assert chains(pylock, "gone") == []
    assert chains(lock([]), "a") == []


def test_paths_are_bounded_and_the_shortest_come_first() -> None:
    wide = [f"w{number}" for number in range(12)]
    layers = [[f"{name}-{depth}" for name in wide] for depth in range(5)]
    packages = [
        package(name, "1", ["x" if depth == 4 else "", *(layers[depth + 1] if depth < 4 else [])])
        for depth, layer in enumerate(layers)
        for name in layer
    ]
    found = why(
        lock([*layers[0], "short"], *packages, package("short", "1", ["x"]), package("x", "1")),
        canonicalize_name("x"),
        [MUSL],
    )
    assert found.truncated
    assert len(found.paths) == MAX_PATHS
    assert [step.name for step in found.paths[0]] == ["short", "x"]
    assert len(set(found.paths)) == MAX_PATHS


def test_a_knot_of_circles_does_not_stall_the_search() -> None:
    knot = [f"k{number}" for number in range(40)]
    packages = [package(name, "1", knot) for name in knot]
    packages[-1] = package(knot[-1], "1", [*knot, "x"])
    found = why(lock(["k0"], *packages, package("x", "1")), canonicalize_name("x"), [MUSL])
    assert found.truncated
    assert [step.name for step in found.paths[0]] == ["k0", "k39", "x"]


@pytest.mark.parametrize("length", [2, 2_000])
def test_a_long_chain_is_followed_to_its_end(length: int) -> None:
    packages = [package(f"p{number}", "1", [f"p{number + 1}"]) for number in range(length)]
    [path] = chains(lock(["p0"], *packages, package(f"p{length}", "1")), f"p{length}")
    assert len(path) == length + 1


# requirements.txt


def test_a_lock_as_requirements_text_parses_again() -> None:
    text = requirements_text(lock([], package("b", "2"), package("a", "1", marker="platform_machine == 'aarch64'")))
    assert text.splitlines()[0] == 'a==1 ; platform_machine == "aarch64" \\'
    [a, b] = parse_requirements(text)
    assert [a.name, b.name] == ["a", "b"]
    assert a.hashes == b.hashes == {"sha256:" + "a" * 64, "sha256:" + "b" * 64}
    assert requirements_text(lock([])) == ""
