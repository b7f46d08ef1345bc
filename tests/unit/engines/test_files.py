import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from resolver.domain.errors import InvalidRequest
from resolver.engines.files import requirement_files
from tests.unit.engines.conftest import ask

INDEXES = ()


def test_markers_are_evaluated_for_the_target_and_gone() -> None:
    question = ask(
        INDEXES,
        "Foo_Bar[Z,a] >=1, <2 ; python_version < '3.13'",
        "win ; sys_platform == 'win32'",
        "patched ; python_full_version >= '3.12.1'",
        python="3.12",
        constraints=["foo-bar[a] !=1.5", "arm==1 ; platform_machine == 'aarch64'"],
        held=[(canonicalize_name("foo-bar"), SpecifierSet("<=1.8"))],
    )
    files = requirement_files(question)
    assert files.requirements == "foo-bar[a,z]<2,>=1\n"
    assert files.constraints == "foo-bar!=1.5\nfoo-bar<=1.8\n"


def test_a_line_break_in_a_marker_reaches_no_engine() -> None:
    question = ask(INDEXES, r"foo ; os_name != 'x\n--index-url http://elsewhere.example.com'")
    assert "\n" in str(question.requirements[0].requirement.marker).encode().decode("unicode_escape")
    assert requirement_files(question).requirements == "foo\n"


@pytest.mark.parametrize("version", ["${HOME}", "1\\", "a#b", "not-a-version"])
def test_what_an_engine_would_read_otherwise_is_refused(version: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        requirement_files(ask(INDEXES, "fine", f"foo==={version}"))
    assert (raised.value.field, raised.value.line) == ("requirements", 2)


def test_a_url_is_refused() -> None:
    assert Requirement("foo @ file:///etc/passwd").url is not None
    with pytest.raises(InvalidRequest, match="URL"):
        requirement_files(ask(INDEXES, "foo @ file:///etc/passwd"))
