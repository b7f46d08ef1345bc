import pytest
from packaging.requirements import Requirement

from resolver.domain.requests import Index, RequirementLine, canonical_requirement, public_url


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("Foo.Bar", "foo-bar"),
        ("foo [B_b, a]", "foo[a,b-b]"),
        ("foo (>=1, <2)", "foo<2,>=1"),
        ("foo ~= 1.4.2, != 1.4.3", "foo!=1.4.3,~=1.4.2"),
        ("foo>=1,>=1", "foo>=1"),
        ("foo;python_version<'3.13'and os_name=='posix'", 'foo ; python_version < "3.13" and os_name == "posix"'),
        ("foo == 1.* ; extra == 'A_b'", 'foo==1.* ; extra == "a-b"'),
    ],
)
def test_one_form_for_all_spellings(written: str, canonical: str) -> None:
    assert canonical_requirement(Requirement(written)) == canonical
    assert canonical_requirement(Requirement(canonical)) == canonical


def test_a_line_has_its_hashes_in_order() -> None:
    line = RequirementLine(Requirement("Foo==1"), frozenset({"sha256:b", "sha256:a"}), 7)
    assert line.canonical == "foo==1 --hash=sha256:a --hash=sha256:b"
    assert line.name == "foo"


def test_an_index_shows_nothing_of_its_credentials() -> None:
    index = Index("mine", "https://user:hunter2@packages.example.com:8443/simple?token=hunter2#x")
    assert index.public_url == "https://packages.example.com:8443/simple"
    assert "hunter2" not in repr(index)
    assert public_url("https://a@b@packages.example.com/x") == "https://packages.example.com/x"
    assert public_url("") == ""


def test_an_index_is_open_to_all_or_to_some() -> None:
    assert Index("a", "").open_to("shop")
    assert Index("a", "").open_to(None)
    assert Index("a", "", frozenset({"shop"})).open_to("shop")
    assert not Index("a", "", frozenset({"shop"})).open_to("bank")
    assert not Index("a", "", frozenset({"shop"})).open_to(None)
