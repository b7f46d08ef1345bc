"""Built wheels in locks, and who shares them."""

from datetime import UTC, datetime

import pytest
from packaging.pylock import Package, PackageSdist, PackageWheel, Pylock
from packaging.version import Version

from resolver.domain.builds import ANY, BuiltWheel, build_id, trust_domain
from resolver.domain.inspection import requirements_text
from resolver.domain.keys import resolution_key
from resolver.domain.locks import Lock, PackageFacts, compose, tool_facts
from resolver.domain.requests import Index, Policy, Question, ResolveRequest
from resolver.domain.requirements import parse_requirements
from resolver.domain.targets import TargetEnvironment
from resolver.service.requests import Requests, to_json
from storage.content import Digest

INDEX = Index("pypi", "https://packages.example.com/simple")
GLIBC = TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64")
OLDER = TargetEnvironment.from_platform("3.12", "manylinux_2_17_x86_64")
MUSL = TargetEnvironment.from_platform("3.12", "musllinux_1_2_x86_64")
LINES = parse_requirements("a")


def a_built_wheel(target: str = ANY, version: str = "1.0", tag: str = "py3-none-any") -> BuiltWheel:
    filename = f"a-{version}-{tag}.whl"
    return BuiltWheel(
        name=LINES[0].name,
        version=Version(version),
        filename=filename,
        digest=Digest.of(f"{filename} {target}".encode()),
        size=3,
        sdist=PackageSdist(
            name=f"a-{version}.tar.gz",
            url=f"https://packages.example.com/a-{version}.tar.gz",
            hashes={"sha256": "a" * 64},
        ),
        build=f"build of {target}",
        target=target,
        metadata=b"",
    )


def a_pick(wheel: PackageWheel) -> Pylock:
    package = Package(name=LINES[0].name, version=Version("1.0"), wheels=[wheel])
    return Pylock(lock_version=Version("1.0"), created_by="lockstep", packages=[package])


def a_lock(picks: dict[TargetEnvironment, PackageWheel], built: list[BuiltWheel]) -> Lock:
    return compose(
        requirements=LINES,
        constraints=(),
        picks={target: a_pick(wheel) for target, wheel in picks.items()},
        facts={LINES[0].name: PackageFacts(INDEX)},
        built=built,
    )


def selected(lock: Lock, target: TargetEnvironment) -> list[tuple[str, str]]:
    return [(wheel.filename, wheel.hashes["sha256"]) for _, wheel in lock.select(target)]


def test_a_lock_keeps_the_sdist_and_names_the_wheel() -> None:
    built = a_built_wheel()
    lock = a_lock({GLIBC: built.wheel, MUSL: built.wheel}, [built, a_built_wheel(version="2.0")])
    [package] = lock.pylock.packages
    assert package.wheels is None
    assert package.sdist == built.sdist
    assert [each["build"] for each in tool_facts(package)["built"]] == ["build of any"]
    for target in (GLIBC, MUSL):
        assert selected(lock, target) == [(built.filename, built.digest.hex)]
    assert Lock.parse(lock.content).pylock == lock.pylock
    assert requirements_text(lock.pylock) == f"a==1.0 \\\n    --hash=sha256:{'a' * 64}\n"


def test_an_index_has_the_wheel_for_one_and_the_sdist_for_the_other() -> None:
    built = a_built_wheel()
    filename = "a-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    published = PackageWheel(name=filename, url=f"https://packages.example.com/{filename}", hashes={"sha256": "b" * 64})
    lock = a_lock({GLIBC: published, MUSL: built.wheel}, [built])
    assert selected(lock, GLIBC) == [(filename, "b" * 64)]
    assert selected(lock, MUSL) == [(built.filename, built.digest.hex)]


def test_native_wheels_of_one_name_are_told_apart_by_their_class() -> None:
    one, two = (a_built_wheel(target.name, tag="cp312-cp312-linux_x86_64") for target in (GLIBC, OLDER))
    lock = a_lock({GLIBC: one.wheel, OLDER: two.wheel}, [one, two])
    assert selected(lock, GLIBC) == [(one.filename, one.digest.hex)]
    assert selected(lock, OLDER) == [(two.filename, two.digest.hex)]


def test_a_native_wheel_is_not_shown_to_another_class() -> None:
    """Its tag says `linux_x86_64`, which any libc's platforms have."""
    built = (a_built_wheel(), a_built_wheel(GLIBC.name))
    for target, seen in ((GLIBC, built), (MUSL, built[:1]), (OLDER, built[:1])):
        assert Question(LINES, (), target, (INDEX,), built=built).built_here == seen


def test_who_shares_a_build() -> None:
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    domains = [
        trust_domain(["a", "b"], None, None),
        trust_domain(["b", "a"], None, None),
        trust_domain(["a"], None, None),
        trust_domain(["a"], "shop", None),
        trust_domain(["a"], None, noon),
    ]
    sdist = Digest.of(b"sdist")
    names = {build_id(domain, sdist, place, "b1") for domain in domains for place in (ANY, GLIBC.name)}
    assert len(names | {build_id(domains[0], sdist, ANY, "b2"), build_id(domains[0], Digest.of(b"x"), ANY, "b1")}) == 12


@pytest.mark.parametrize("builds", ["never", "native"])
def test_what_may_be_built_is_part_of_a_key_but_for_the_default(builds: str) -> None:
    def key(**policy: object) -> str:
        return resolution_key(ResolveRequest(LINES, MUSL, (INDEX,), policy=Policy(**policy)), [])  # type: ignore[arg-type]

    assert key() == key(builds="pure") != key(builds=builds)


def test_a_namespace_has_its_own_policy_also_when_asked_again() -> None:
    requests = Requests([INDEX], "never", {"shop": "pure", "mint": "native"})

    def asked(namespace: str | None) -> ResolveRequest:
        return requests.parse(
            requirements="a", constraints=None, target=MUSL, indexes=None, policy=Policy(), workload=None,
            namespace=namespace,
        )  # fmt: skip

    found = {namespace: asked(namespace) for namespace in (None, "shop", "mint", "other")}
    assert [each.policy.builds for each in found.values()] == ["never", "pure", "native", "never"]
    for each in found.values():
        assert resolution_key(requests.again(to_json(each), MUSL), []) == resolution_key(each, [])
    # What nobody may do any more is not done again.
    after = Requests([INDEX], "never")
    assert after.again(to_json(found["mint"]), MUSL).policy.builds == "never"
