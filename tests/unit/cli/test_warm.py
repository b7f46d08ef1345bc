"""`warm`: the file, what is asked of the service, what a person is told, how it ends."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.api import problems, schemas
from resolver.api.warm_schemas import WarmAnswer, WarmBody, WarmedEntry
from resolver.cli import warm_file
from resolver.client.errors import BadUsage
from tests.unit.cli.answers import CLEARS_SCREEN, NEW
from tests.unit.cli.conftest import Run
from tests.unit.cli.service import Said, Service, of_model, of_problem

PROGRAM = [sys.executable, "-c", "import sys; from resolver.cli import main; sys.exit(main(None, serve=lambda _: 7))"]
OPERATION = "/v1/operations/0123"
WHOLE = """\
targets:                       # defaults for every entry
  - {python: "3.12", platform: musllinux_1_2_x86_64}
entries:
  - name: checkout
    requirements: |
      requests>=2
      pandas
    constraints: [urllib3<3]
    namespace: shop
    indexes: [pypi]
  - name: reports
    requirements_file: more/reports.txt
    targets: [{python: "3.13", platform: manylinux_2_28_aarch64}]
    exclude_newer: 2026-11-01T00:00:00Z
    prereleases: true
recent: {days: 7, limit: 200}  # and whatever was asked for most lately
"""


def written(folder: Path, text: str) -> str:
    (folder / "warm.yaml").write_text(text)
    return str(folder / "warm.yaml")


def problem(kind: problems.Kind, **facts: object) -> schemas.Problem:
    return schemas.Problem(**problems.body(kind, "because of this\nand that", "the-request-id", **facts))


def entry(name: str = "checkout", outcome: Any = "resolved", told: schemas.Problem | None = None) -> WarmedEntry:
    digest = None if told else NEW
    target = schemas.TargetAnswer(python="3.12", platform="musllinux_1_2_x86_64")
    return WarmedEntry(
        name=name, target=target, outcome=outcome, lock=digest, bundle=digest, seconds=1.25, problem=told
    )


def answer(*entries: WarmedEntry) -> Said:
    return of_model(WarmAnswer(hot=all(each.problem is None for each in entries), entries=[*entries]))


def running(done: int, total: int, stage: str = "warming") -> Said:
    state = {"stage": stage, "done": done, "total": total}
    body = schemas.OperationAnswer(id="0123", kind="warm", state="running", progress=state)
    return of_model(body, 202, **{"Location": OPERATION, "Retry-After": "0"})


def test_the_file_is_what_the_service_is_asked(ask: Run, service: Service, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "reports.txt").write_text("\ufeffmatplotlib # plots\n", "utf-8")
    service.says("POST", "/v1/warm", answer(entry()))
    assert ask("warm", written(tmp_path, WHOLE)).code == 0
    [asked] = service.asked
    WarmBody.model_validate(asked.body)
    assert asked.body == {
        "entries": [
            {
                "name": "checkout",
                "requirements": "requests>=2\npandas\n",
                "constraints": ["urllib3<3"],
                "namespace": "shop",
                "indexes": ["pypi"],
                "prereleases": False,
                "targets": [{"python": "3.12", "platform": "musllinux_1_2_x86_64"}],
            },
            {
                "name": "reports",
                "requirements": "matplotlib # plots\n",
                "exclude_newer": "2026-11-01T00:00:00Z",
                "prereleases": True,
                "targets": [{"python": "3.13", "platform": "manylinux_2_28_aarch64"}],
            },
        ],
        "recent": {"days": 7, "limit": 200},
    }


def test_what_was_asked_for_lately_alone(ask: Run, service: Service, tmp_path: Path) -> None:
    service.says("POST", "/v1/warm", answer())
    assert ask("warm", written(tmp_path, "recent: {days: 0.5, limit: 1}")).code == 0
    assert service.asked[0].body == {"entries": [], "recent": {"days": 0.5, "limit": 1}}


def test_every_fault_is_told_at_once_with_its_place(ask: Run, service: Service, tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
targets:
  - {python: 3.12, platform: musllinux_1_2_x86_64}
  - {python: "3.12", platform: windows}
entires: []
entries:
  - name: checkout
    requirements: |
      requests>=2
      -e .
  - name: checkout
    requirements_file: absent.txt
    requirements: x
    namespace: shop
    namespace: shop
  - requirements: 3
    constraints: [x, "y[z]"]
    index: [x]
  - 7
recent: {days: 0, limit: 2000}
""",
    )
    ran = ask("warm", path)
    assert (ran.code, ran.out, service.asked) == (64, "", [])
    first, *lines = ran.err.splitlines()
    assert first == f"lockstep: {path} is no warm file"
    expected = [
        "line 2: targets.0.python: not a word: put it in quotes",
        "line 3: targets.1: python '3.12', platform 'windows': not a manylinux or musllinux platform tag",
        "line 4: entires: no such field",
        "line 7: entry 'checkout', requirements: its line 2: an editable install",
        "line 10: entry 'checkout', name: another entry has this name",
        "line 10: entry 'checkout': needs `requirements` or `requirements_file`, one of them",
        "line 11: entry 'checkout', requirements_file: cannot read absent.txt: No such file or directory",
        "line 14: entry 'checkout', namespace: stands here twice",
        "line 15: entry 3, name: Field required",
        "line 15: entry 3, requirements: neither text nor a list of requirements",
        "line 16: entry 3, constraints: its line 2: ",
        "line 17: entry 3, index: no such field",
        "line 18: entry 4: is no mapping of names to values",
        "line 19: recent.days: Input should be greater than 0",
        "line 19: recent.limit: Input should be less than or equal to 1000",
    ]
    assert [line.strip()[: len(beginning)] for line, beginning in zip(lines, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: is no mapping"),
        ("- a", "line 1: is no mapping"),
        ("a: [", "is not YAML, line 1"),
        ("a: &b [*b]", "line 1: a: no such field"),
        ("entries: {a: 1, a: 2}", "line 1: entries.a: stands here twice"),
        ("entries: &a [*a]", "line 1: entry 1: is no mapping"),
        ("recent: 2026-13-45", "is not YAML"),
        ("!!python/object:os.system x", "is not YAML, line 1"),
        ("a: \x01", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("? [a]\n: b", "is not YAML"),
        ("entries: [{name: a, requirements: ''}]", "line 1: entry 'a': has no `targets`"),
        ("targets: []\nentries: [{name: a, requirements: x, targets: []}]", "line 2: entry 'a': has no `targets`"),
        ("entries: [{name: a, requirements_file: 'b\\0'}]", "entry 'a', requirements_file: "),
        ("entries: [{name: a, requirements_file: .}]", "entry 'a', requirements_file: cannot read .: Is a directory"),
    ],
)
def test_what_is_no_warm_file(ask: Run, service: Service, tmp_path: Path, text: str, told: str) -> None:
    ran = ask("warm", written(tmp_path, text))
    assert (ran.code, ran.out, service.asked) == (64, "", [])
    assert told in ran.err


def test_a_file_that_is_not_there(ask: Run, tmp_path: Path) -> None:
    assert ask("warm", str(tmp_path / "absent")).code == 64
    assert ask("warm", str(tmp_path)).code == 64
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert ask("warm", str(tmp_path / "binary")).code == 64


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text("targets:enri[]{}-,&*!?|>'\"\n #%@`\t0", max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["targets", "entries", "recent", "name", "requirements", "python", "days"]), inner
                )
            ),
            max_leaves=20,
        ).map(json.dumps),
    )
)
def test_whatever_the_file_holds_it_is_taken_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "warm.yaml").write_text(text, "utf-8", errors="replace")
    with contextlib.suppress(BadUsage):
        WarmBody.model_validate(warm_file.read(tmp_path / "warm.yaml"))


def test_what_was_warmed_is_a_table(ask: Run, service: Service, tmp_path: Path) -> None:
    failed = entry(f"no{CLEARS_SCREEN}", "failed", problem(problems.NO_SOLUTION, hints=["try this"]))
    service.says("POST", "/v1/warm", answer(entry(), entry("reports", "hot"), failed))
    ran = ask("warm", written(tmp_path, "recent: {days: 1, limit: 1}"))
    assert ran.code == 65
    rows = [re.split(r"\s{2,}", line.strip()) for line in ran.out.splitlines()]
    assert rows[0] == ["entry", "python", "platform", "outcome", "lock", "seconds", "because"]
    assert rows[2:4] == [
        ["checkout", "3.12", "musllinux_1_2_x86_64", "resolved", NEW[7:19], "1.25"],
        ["reports", "3.12", "musllinux_1_2_x86_64", "hot", NEW[7:19], "1.25"],
    ]
    assert rows[4][-1] == problems.NO_SOLUTION.title
    assert "\x1b" not in ran.out + ran.err
    lines = [line.strip() for line in ran.err.splitlines()]
    assert lines[1:] == ["and that", "try this", "request_id: the-request-id"]


def test_json_is_the_services_own_answer(ask: Run, service: Service, tmp_path: Path) -> None:
    said = answer(entry(), entry("b", "stale", problem(problems.INDEX_UNAVAILABLE)))
    service.says("POST", "/v1/warm", said)
    ran = ask("warm", written(tmp_path, "recent: {days: 1, limit: 1}"), "--json")
    assert ran.code == 69
    assert json.loads(ran.out) == json.loads(said.content)


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([], 0),
        ([problems.INDEX_UNAVAILABLE], 69),
        ([problems.DIGEST_MISMATCH, problems.BUSY, problems.INTERNAL], 69),
        ([problems.UNSUPPORTED_TARGET], 65),
        ([problems.INDEX_UNAVAILABLE, problems.BUILD_REQUIRED], 65),
    ],
)
def test_it_ends_by_what_failed(
    ask: Run, service: Service, tmp_path: Path, kinds: list[problems.Kind], code: int
) -> None:
    service.says("POST", "/v1/warm", answer(entry(), *(entry("b", "failed", problem(kind)) for kind in kinds)))
    assert ask("warm", written(tmp_path, "recent: {days: 1, limit: 1}")).code == code


def test_work_is_followed_and_its_progress_told(ask: Run, service: Service, tmp_path: Path) -> None:
    service.says("POST", "/v1/warm", running(0, 0, "waiting"))
    service.says("GET", OPERATION, running(0, 3), running(1, 3), running(1, 3), running(3, 3), answer(entry()))
    ran = ask("warm", written(tmp_path, "recent: {days: 1, limit: 1}"))
    assert ran.code == 0
    assert ran.err.splitlines() == [f"lockstep: warming: {done} of 3" for done in (0, 1, 3)]


def test_work_that_ends_as_a_problem(ask: Run, service: Service, tmp_path: Path) -> None:
    service.says("POST", "/v1/warm", running(0, 0))
    service.says("GET", OPERATION, of_problem(problems.BUSY, "the process is gone"))
    ran = ask("warm", written(tmp_path, "recent: {days: 1, limit: 1}"))
    assert (ran.code, ran.out) == (69, "")
    assert "the process is gone" in ran.err


@pytest.mark.parametrize(
    "said",
    [
        Said(b"{}"),
        Said(b'{"hot": true, "entries": [{}]}'),
        Said(b'{"hot": true, "entries": 3}'),
        Said(b"{}", 202, {"Location": OPERATION}),
        Said(b'{"progress": {"done": "x", "total": 1}}', 202, {"Location": OPERATION}),
    ],
)
def test_an_answer_of_another_kind(ask: Run, service: Service, tmp_path: Path, said: Said) -> None:
    service.says("POST", "/v1/warm", said)
    ran = ask("warm", written(tmp_path, "recent: {days: 1, limit: 1}"))
    assert (ran.code, ran.out) == (69, "")
    assert "not as the contract has it" in ran.err


def test_a_terminal_has_a_bar(service: Service, tmp_path: Path) -> None:
    service.says("POST", "/v1/warm", running(0, 0, "waiting"))
    service.says("GET", OPERATION, running(1, 3), running(2, 3), answer(entry()))
    path = written(tmp_path, "recent: {days: 1, limit: 1}")
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(
            [*PROGRAM, "warm", path, "--server", service.url],
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
        ) as ran,
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends, on Linux
            while chunk := terminal.read(4096):
                shown += chunk
        out, _ = ran.communicate(timeout=60)
    assert ran.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "warming" in text
    assert "2/3" in text
    assert b"checkout" in out
