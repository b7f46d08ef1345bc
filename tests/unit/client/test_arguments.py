"""Flags, variables, and which of them win."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from resolver.client.arguments import Options, parse
from resolver.client.errors import BadUsage

WHERE = ["--server", "http://lockstep", "--target", "target"]


def parsed(*arguments: str, **environ: str) -> Options:
    return parse([*WHERE, *arguments], environ)


def test_every_flag_has_a_variable() -> None:
    options = parse(
        [],
        {
            "LOCKSTEP_SERVER": "http://lockstep",
            "LOCKSTEP_TARGET": "/target",
            "LOCKSTEP_REQUIREMENTS": "requests\nattrs\n",
            "LOCKSTEP_CONSTRAINTS": "urllib3<3",
            "LOCKSTEP_INDEX": "internal, pypi",
            "LOCKSTEP_NAMESPACE": "shop",
            "LOCKSTEP_WORKLOAD": "checkout",
            "LOCKSTEP_REVISION": "6d4cf56db6",
            "LOCKSTEP_PYTHON": "3.12",
            "LOCKSTEP_PLATFORM": "musllinux_1_2_x86_64",
            "LOCKSTEP_TOKEN_FILE": "/token",
            "LOCKSTEP_CA_FILE": "/ca",
            "LOCKSTEP_TIMEOUT": "7.5",
            "LOCKSTEP_ON_FAILURE": "fallback",
            "OTHER": "not ours",
        },
    )
    assert vars(options) == {
        "server": "http://lockstep",
        "target": "/target",
        "requirements": "requests\nattrs\n",
        "constraints": "urllib3<3",
        "indexes": ["internal", "pypi"],
        "namespace": "shop",
        "workload": "checkout",
        "revision": "6d4cf56db6",
        "python": "3.12",
        "platform": "musllinux_1_2_x86_64",
        "token_file": "/token",
        "ca_file": "/ca",
        "timeout": 7.5,
        "fallback": True,
    }


def test_flags_win_over_variables(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("from-file")
    (tmp_path / "c.txt").write_text("bound<1")
    options = parsed(
        *("-r", str(tmp_path / "r.txt"), "-c", str(tmp_path / "c.txt"), "--index", "b", "--index", "a"),
        *("--timeout", "3", "--on-failure", "fail"),
        LOCKSTEP_REQUIREMENTS="from-variable",
        LOCKSTEP_CONSTRAINTS="bound<2",
        LOCKSTEP_INDEX="z",
        LOCKSTEP_TIMEOUT="9",
        LOCKSTEP_ON_FAILURE="fallback",
    )
    assert (options.requirements, options.constraints, options.indexes) == ("from-file", "bound<1", ["b", "a"])
    assert (options.timeout, options.fallback) == (3.0, False)


def test_requirements_one_by_one() -> None:
    assert parsed("--requirement", "a>1", "--requirement", "b").requirements == "a>1\nb\n"
    assert parsed(LOCKSTEP_REQUIREMENT="a>1\nb").requirements == "a>1\nb\n"
    assert parsed("--requirement", "a", LOCKSTEP_REQUIREMENTS="b").requirements == "a\n"
    assert (
        parsed("--requirement", "-e .", "--requirement=--no-binary :all:").requirements == "-e .\n--no-binary :all:\n"
    )


def test_a_value_stands_behind_its_flag_or_is_attached(tmp_path: Path) -> None:
    file = tmp_path / "r.txt"
    file.write_text("a\n")
    for words in (["-r", str(file)], [f"-r{file}"], ["--requirements", str(file)], [f"--requirements={file}"]):
        assert parsed(*words, "--timeout=4", "--timeout", "5").requirements == "a\n"
    assert parsed("-r", str(file), "--timeout=4", "--timeout", "5").timeout == 5.0


def test_requirements_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"caf\xe9 # not UTF-8\n")))
    text = parsed("-r", "-").requirements
    assert text.encode("utf-8", "surrogateescape") == b"caf\xe9 # not UTF-8\n"


def test_an_empty_set_is_a_request_and_other_empty_variables_are_not_set() -> None:
    options = parsed(LOCKSTEP_REQUIREMENTS="", LOCKSTEP_TOKEN_FILE="", LOCKSTEP_INDEX="", LOCKSTEP_TIMEOUT="")
    assert (options.requirements, options.token_file, options.indexes) == ("", None, [])
    assert options.timeout > 0


@pytest.mark.parametrize(
    "name",
    [
        "LOCKSTEP_PORT",
        "LOCKSTEP_SERVICE_HOST",
        "LOCKSTEP_SERVICE_PORT",
        "LOCKSTEP_SERVICE_PORT_HTTP",
        "LOCKSTEP_PORT_8080_TCP",
        "LOCKSTEP_PORT_8080_TCP_ADDR",
        "LOCKSTEP_PORT_53_UDP_PROTO",
        "LOCKSTEP_DB_SERVICE_HOST",
        "LOCKSTEP_DB_PORT_5432_TCP_PORT",
    ],
)
def test_what_kubernetes_injects_for_services_is_ignored(name: str) -> None:
    assert parsed("--requirement", "a", **{name: "tcp://10.0.0.1:8080"}).requirements == "a\n"


@pytest.mark.parametrize(
    ("arguments", "environ", "told"),
    [
        ([], {}, "no requirements"),
        (["--requirement", "a"], {"LOCKSTEP_TIMEOU": "s3cret"}, "LOCKSTEP_TIMEOU"),
        (["--requirement", "a"], {"LOCKSTEP_HOST": "s3cret"}, "LOCKSTEP_HOST"),
        (["--requirement", "a", "--wait", "3"], {}, "--wait"),
        (["--requirement", "a", "--req", "b"], {}, "--req"),
        (["--requirement"], {}, "--requirement"),
        (["--requirement", "--timeout=3"], {}, "--requirement"),
        (["-r", "-c", "s3cret"], {}, "--requirements"),
        (["s3cret"], {}, "belongs to no flag"),
        (["--timeout"], {"LOCKSTEP_REQUIREMENTS": "a"}, "--timeout"),
        (["--requirement", "a", "-r", "-"], {}, "given twice"),
        ([], {"LOCKSTEP_REQUIREMENTS": "a", "LOCKSTEP_REQUIREMENT": "b"}, "given twice"),
        (["-r", "no-such-file"], {}, "cannot read no-such-file"),
        (["--requirement", "a", "-c", "no-such-file"], {}, "cannot read no-such-file"),
        (["--requirement", "a", "--python", "3.12"], {}, "--platform"),
        (["--requirement", "a", "--platform", "musllinux_1_2_x86_64"], {}, "--python"),
        (["--requirement", "a", "--namespace", "n"], {}, "--workload"),
        (["--requirement", "a", "--revision", "r"], {}, "--workload"),
        (["--requirement", "a", "--on-failure", "shrug"], {}, "--on-failure"),
        (["--requirement", "a", "--timeout", "soon"], {}, "--timeout"),
        (["--requirement", "a", "--timeout", "0"], {}, "--timeout"),
        (["--requirement", "a"], {"LOCKSTEP_TIMEOUT": "nan"}, "--timeout"),
        (["--requirement", "a"], {"LOCKSTEP_TIMEOUT": "inf"}, "--timeout"),
    ],
)
def test_bad_usage_names_the_flag_and_shows_no_value(arguments: list[str], environ: dict[str, str], told: str) -> None:
    with pytest.raises(BadUsage) as caught:
        parsed(*arguments, **environ)
    said = "\n".join((str(caught.value), *caught.value.hints))
    assert told in said
    assert "s3cret" not in said


@pytest.mark.parametrize("missing", ["--server", "--target"])
def test_server_and_target_are_needed(missing: str) -> None:
    given = dict(zip(WHERE[::2], WHERE[1::2], strict=True))
    del given[missing]
    with pytest.raises(BadUsage, match=missing):
        parse([*(word for pair in given.items() for word in pair), "--requirement", "a"], {})


def test_the_file_that_fallback_writes_is_no_place_for_the_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("requests")
    (tmp_path / "link").symlink_to(tmp_path)
    given = ["--server", "http://x", "--target", str(tmp_path), "-r", str(tmp_path / "link/requirements.txt")]
    with pytest.raises(BadUsage, match="keep the requirements elsewhere"):
        parse([*given, "--on-failure", "fallback"], {})
    assert parse(given, {}).requirements == "requests"
