"""What hypothesis makes requirements and targets of."""

from hypothesis import strategies as st
from packaging.requirements import Requirement

from resolver.domain.requests import RequirementLine
from resolver.domain.targets import LADDER, MACHINES, PYTHONS, TargetEnvironment

names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._\-]{0,8}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: "." not in name
)
versions = st.builds(".".join, st.lists(st.integers(0, 30).map(str), min_size=1, max_size=3))
specifiers = st.builds("{}{}".format, st.sampled_from(["==", "!=", ">=", "<=", "<", ">"]), versions)
markers = st.sampled_from(
    [
        "",
        "; python_version < '3.13'",
        '; "linux" in sys_platform and platform_machine == "aarch64"',
        "; (os_name == 'posix' or os_name == 'nt') and python_full_version >= '3.10.2'",
        "; extra == 'Some_Extra'",
    ]
)
hashes = st.frozensets(st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True), max_size=2)


@st.composite
def requirement_texts(draw: st.DrawFn) -> str:
    extras = draw(st.lists(names, max_size=2))
    bounds = draw(st.lists(specifiers, max_size=3))
    text = draw(names) + (f"[{','.join(extras)}]" if extras else "") + ",".join(bounds)
    return text + draw(markers)


requirement_lines = st.builds(RequirementLine, requirement_texts().map(Requirement), hashes)


@st.composite
def targets(draw: st.DrawFn) -> TargetEnvironment:
    libc = draw(st.sampled_from(["glibc", "musl"]))
    rung = draw(st.sampled_from(LADDER[libc]))
    family = "manylinux" if libc == "glibc" else "musllinux"
    platform = f"{family}_{rung[0]}_{rung[1]}_{draw(st.sampled_from(MACHINES))}"
    return TargetEnvironment.from_platform(draw(st.sampled_from(PYTHONS)), platform)
