from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.domain.errors import InvalidRequest
from resolver.domain.requests import RequirementLine
from resolver.domain.requirements import (
    MAX_BYTES,
    MAX_LINE_CHARACTERS,
    MAX_LINES,
    MAX_REQUIREMENT_CHARACTERS,
    parse_constraints,
    parse_requirement,
    parse_requirements,
)
from tests.unit.domain.strategies import requirement_lines

SHA = "a" * 64
SHARED = Path(__file__).parents[4] / "shared" / "requirements"


def canonical(source: str | list[str]) -> list[str]:
    return [line.canonical for line in parse_requirements(source)]


def refusal(source: str | list[str]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_requirements(source)
    return caught.value


@pytest.mark.parametrize("nothing", ["", "\n \n", "# a comment\n\t# another", [], ["", "# comment"], "\ufeff", "\\"])
def test_nothing_at_all_is_valid(nothing: str | list[str]) -> None:
    assert parse_requirements(nothing) == ()


def test_text_as_pip_reads_it() -> None:
    text = "\ufeff# made by hand\r\nRequests >= 2, <3   # an inline comment\r\n\r\nFoo_Bar[B, a]==1.0#notacomment\r\n"
    error = refusal(text)
    assert (error.line, error.field) == (4, "requirements")
    assert canonical(text.replace("#notacomment", "")) == ["requests<3,>=2", "foo-bar[a,b]==1.0"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_count_from_one_and_a_continued_line_is_its_first(newline: str) -> None:
    text = newline.join(["# one", "a \\", "  >=1, \\", "  <2", "", "b", f"c==1 \\\n    --hash=sha256:{SHA}", "d"])
    assert [(line.canonical, line.line) for line in parse_requirements(text)] == [
        ("a<2,>=1", 2),
        ("b", 6),
        (f"c==1 --hash=sha256:{SHA}", 7),
        ("d", 9),
    ]


def test_a_comment_line_ends_a_continuation_and_continues_nothing() -> None:
    assert canonical("a \\\n# comment \\\nb") == ["a", "b"]


def test_a_comment_that_would_swallow_the_next_line_is_refused() -> None:
    error = refusal("a\nb # comment \\\nc")
    assert error.line == 2
    assert "backslash" in error.reason


def test_a_continuation_at_the_end_of_the_text_ends_there() -> None:
    assert canonical("a\\\n>=1\\") == ["a>=1"]


def test_a_list_has_one_requirement_an_entry() -> None:
    lines = parse_requirements(["a", "", " b>=1 # why\n", "# no"])
    assert [(line.name, line.line) for line in lines] == [("a", 1), ("b", 3)]
    assert refusal(["a", "b\nc"]).line == 2
    assert "backslash" in refusal(["a\\", "b"]).reason


def test_markers_stay_and_are_not_cut_by_options() -> None:
    text = f"a ; python_version < '3.13' --hash=sha256:{SHA}"
    assert canonical(text) == [f'a ; python_version < "3.13" --hash=sha256:{SHA}']


def test_hashes_in_every_form_that_pip_takes() -> None:
    other = "B" * 64
    [line] = parse_requirements(f"a==1 --hash=sha256:{SHA} --hash sha256:{other} --hash=sha256:{SHA}")
    assert line.hashes == {f"sha256:{SHA}", f"sha256:{other.lower()}"}


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("-e .", "by its name"),
        ("--editable=git+https://example.com/x", "by its name"),
        ("-e./x", "by its name"),
        ("-r other.txt", "put its lines"),
        ("--requirement other.txt", "put its lines"),
        ("-cother.txt", "`constraints`"),
        ("--constraint=other.txt", "`constraints`"),
        ("-i https://packages.example.com/simple", "`indexes`"),
        ("--index-url=https://packages.example.com/simple", "`indexes`"),
        ("--index https://packages.example.com/simple", "`indexes`"),
        ("--extra-index-url https://packages.example.com/simple", "`indexes`"),
        ("--no-index", "`indexes`"),
        ("-f ./wheels", "by its name"),
        ("--find-links https://example.com/wheels", "by its name"),
        ("--trusted-host packages.example.com", "operator's setting"),
        ("--pre", "`prereleases`"),
        ("--no-binary :all:", "operator's setting"),
        ("--only-binary=:all:", "operator's setting"),
        ("--prefer-binary", "operator's setting"),
        ("--use-feature=fast-deps", "feature of pip"),
        ("--require-hashes", "each is verified"),
        ("--hash=sha256:" + SHA, "on the line of its requirement"),
        ("--nobody-knows-this", "no meaning here"),
        ("--", "no meaning here"),
        ("-", "no meaning here"),
        ("a --config-settings=x=y", "takes no configuration"),
        ("a --global-option=x", "takes no configuration"),
        ("a --pre", "`prereleases`"),
        ("a --hash=sha256:" + SHA + " b", "ends before its options"),
        ("./x", "local path"),
        ("../x[extra]", "local path"),
        (".", "local path"),
        ("/opt/x", "local path"),
        ("~/x", "local path"),
        ("x/y", "local path"),
        ("C:\\x\\y", "local path"),
        ("x-1.0-py3-none-any.whl", "local path"),
        ("x-1.0.tar.gz ; os_name == 'posix'", "local path"),
        ("file:///opt/x", "local path"),
        ("file:x", "local path"),
        ("a @ file:///opt/x.whl", "local path"),
        ("a@./x.whl", "local path"),
        ("git+https://example.com/x@main", "version control"),
        ("git+ssh://git@example.com/x", "version control"),
        ("a[b] @ hg+https://example.com/x", "version control"),
        ("A @ GIT+https://example.com/x", "version control"),
        ("a @ https://example.com/x-1.0-py3-none-any.whl", "at a URL"),
        ("https://example.com/x-1.0-py3-none-any.whl", "at a URL"),
        ("HTTPS://example.com/x", "at a URL"),
        ("a @ elsewhere", "at a URL"),
        ("a==${VERSION}", "environment variables"),
        ("a --hash=sha512:" + SHA * 2, "a lock verifies sha256"),
        ("a --hash=md5:abc", "a lock verifies sha256"),
        ("a --hash", "no algorithm"),
        ("a --hash=sha256:abc", "64 hexadecimal digits"),
        ("a===not/a/path", "local path"),
        ("a===legacy", "PEP 440"),
        ("a; os_name == '\\n--index-url x'", "backslash"),
        ("a; dependency_groups == 'x'", "has no value here"),
        ("a; os_name ~= 'x'", "cannot be compared"),
        ("a; " + "(" * 400 + "os_name == 'x'" + ")" * 400, "parentheses"),
        ("a b", "Expected"),
        ("a==1.0+é", "Expected"),
        ("==1", "Expected package name"),
        ("a\0", "U+0000"),
        ("a\x0bb", "U+000B"),
        ("a\u2028b", "U+2028"),
        ("a # \ud800", "U+D800"),
    ],
)
def test_refused_with_line_reason_and_way_out(line: str, way_out: str) -> None:
    error = refusal(f"# first\nb\n{line}\nc")
    assert error.line == 3
    assert way_out in error.reason
    assert str(error).startswith("requirements, line 3: ")


def test_no_credential_in_what_is_said_of_a_line() -> None:
    for line in [
        "a @ https://user:hunter2@example.com/a.whl?sig=hunter2",
        "--index-url https://user:hunter2@packages.example.com/simple",
        "a https://user:hunter2@packages.example.com",
        "a==1 ;" + " " * 4080 + "https://user:hunter2@packages.example.com/" + "x" * 5000,
        "a\0 https://user:hunter2@packages.example.com",
    ]:
        error = refusal(line)
        assert "hunter2" not in f"{error} {error.reason} {error.text}"
        assert error.text


def test_bounds() -> None:
    assert len(parse_requirements("\n".join(["a"] * MAX_LINES))) == MAX_LINES
    assert refusal("\n".join(["a"] * (MAX_LINES + 1))).line == MAX_LINES + 1
    assert "bytes" in refusal("#" * MAX_BYTES + "\n").reason
    assert "bytes" in refusal(["#" * MAX_LINE_CHARACTERS] * 17).reason
    assert "characters" in refusal("#" * (MAX_LINE_CHARACTERS + 1)).reason
    assert "characters" in refusal(" \\\n" * (MAX_LINE_CHARACTERS + 1)).reason
    assert "characters" in refusal("a==" + "1" * MAX_REQUIREMENT_CHARACTERS).reason
    many_hashes = "".join(f" --hash=sha256:{number:064x}" for number in range(500))
    assert len(parse_requirements("a==1" + many_hashes)[0].hashes) == 500


def test_constraints_have_no_extras_and_name_their_own_field() -> None:
    assert [line.canonical for line in parse_constraints("urllib3<3\n")] == ["urllib3<3"]
    with pytest.raises(InvalidRequest) as caught:
        parse_constraints("a\nb[c]<2")
    assert (caught.value.field, caught.value.line) == ("constraints", 2)


def test_a_strangers_requirement_is_a_value_error_at_worst() -> None:
    for text in ["a==" + "9" * 5000, "a; " + "(" * 5000, "a; 'x' in extras", "a>=1.*", ""]:
        with pytest.raises(ValueError, match=r"\w"):
            parse_requirement(text)


@given(st.text() | st.lists(st.text()))
def test_nothing_but_invalid_request_comes_of_any_text(source: str | list[str]) -> None:
    parse_or_refuse(source)


PIECES = ["a", "B_c", "[x]", "==", ">=1", "===", "1.0", " ", ";", "os_name", "'", '"', "\\", "\n", "#", "-", "--hash"]
PIECES += [
    "=sha256:" + SHA,
    "@",
    "://",
    "git+",
    "(",
    ")",
    "and",
    " or ",
    "extra",
    "${X}",
    "\r",
    "\t",
    ".whl",
    "~=",
    ",",
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_nothing_but_invalid_request_comes_of_almost_requirements(source: str) -> None:
    for line in parse_or_refuse(source):
        [again] = parse_requirements(line.canonical)
        assert again.canonical == line.canonical


@given(st.lists(requirement_lines, max_size=4))
def test_the_canonical_form_means_the_same(lines: list[RequirementLine]) -> None:
    parsed = parse_requirements("\n".join(line.canonical for line in lines))
    assert [line.canonical for line in parsed] == [line.canonical for line in lines]
    assert [line.hashes for line in parsed] == [line.hashes for line in lines]
    assert [line.requirement for line in parsed] == [line.requirement for line in lines]
    assert parsed == parse_requirements([line.canonical for line in lines])


def parse_or_refuse(source: str | list[str]) -> tuple[RequirementLine, ...]:
    try:
        lines = parse_requirements(source)
    except InvalidRequest as error:
        assert error.reason
        return ()
    for line in lines:
        line.canonical.encode()
        assert "\n" not in line.canonical
        assert line.requirement.url is None
    return lines


@pytest.mark.parametrize(
    "file",
    sorted(SHARED.glob("*.txt"))
    or [pytest.param(SHARED, marks=pytest.mark.skip(reason="no ../shared/requirements on this machine"))],
    ids=lambda file: file.name,
)
def test_real_requirement_sets_parse(file: Path) -> None:
    text = file.read_text()
    written = [line for line in text.splitlines() if line.strip()]
    assert [line.requirement.name for line in parse_requirements(text)]
    assert len(parse_requirements(text)) == len(written)
