"""`locks`, `show`, `diff`, `why`, `pins`."""

import json
from typing import Any

import pytest

from resolver.api import schemas
from tests.unit.cli.answers import NEW, NOON, OLD, lock_detail, lock_item, pin
from tests.unit.cli.conftest import Run
from tests.unit.cli.service import Asked, Said, Service, of_model


def many_locks(count: int) -> "Pages":
    return Pages([lock_item(f"sha256:{number:064x}", [f"p{number}"]) for number in range(count)])


class Pages:
    """A list that is given out as the API gives it: `limit` items, and a cursor."""

    def __init__(self, items: list[schemas.LockItem]) -> None:
        self._items = items

    def __call__(self, asked: Asked) -> Said:
        start, limit = int(asked.query.get("cursor", "0")), int(asked.query["limit"])
        assert 1 <= limit <= 500
        end = start + limit
        cursor = str(end) if end < len(self._items) else None
        return of_model(schemas.LockPage(items=self._items[start:end], cursor=cursor))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_locks_are_a_table_in_the_services_order(ask: Run, service: Service) -> None:
    items = [lock_item(NEW, ["requests>=2", "pandas"]), lock_item(OLD, ["flask"], age=30)]
    service.says("GET", "/v1/locks", of_model(schemas.LockPage(items=items, cursor=None)))
    ran = ask("locks")
    assert (ran.code, ran.err) == (0, "")
    head, _, first, second = ran.out.splitlines()
    assert cells(head) == ["lock", "created (UTC)", "packages", "targets", "pins", "requirements"]
    assert cells(first) == [
        "abababababab",
        "2026-11-01 12:00",
        "5",
        "cp312-musllinux_1_2_x86_64, cp312-musllinux_1_2_aarch64",
        "shop/checkout@r1",
        "requests>=2, pandas",
    ]
    assert cells(second)[:2] == ["acacacacacac", "2026-10-31 06:00"]
    assert {line.index("2026") for line in (first, second)} == {head.index("created")}


def test_locks_are_asked_for_by_package_and_namespace(ask: Run, service: Service) -> None:
    service.says("GET", "/v1/locks", many_locks(0))
    assert ask("locks", "--package", "Flask & Co", "--namespace", "shop").code == 0
    assert service.asked[0].query == {"package": "Flask & Co", "namespace": "shop", "limit": "50"}


@pytest.mark.parametrize(
    ("there", "limit", "given", "limits"),
    [
        (1203, 1100, 1100, ["500", "500", "100"]),
        (1203, 2000, 1203, ["500", "500", "500"]),
        (3, 3, 3, ["3"]),
        (0, 50, 0, ["50"]),
    ],
)
def test_pages_are_joined_up_to_the_limit(
    ask: Run, service: Service, there: int, limit: int, given: int, limits: list[str]
) -> None:
    service.says("GET", "/v1/locks", many_locks(there))
    ran = ask("locks", "--json", "--limit", str(limit))
    assert (ran.code, ran.err) == (0, "")
    page = schemas.LockPage.model_validate(json.loads(ran.out))
    assert [item.requirements for item in page.items] == [[f"p{number}"] for number in range(given)]
    assert page.cursor == (str(limit) if there > limit else None)
    assert [asked.query["limit"] for asked in service.asked] == limits


def test_a_table_says_that_there_is_more(ask: Run, service: Service) -> None:
    service.says("GET", "/v1/locks", many_locks(3))
    assert "--limit" in ask("locks", "--limit", "2").err
    assert ask("locks", "--limit", "3").err == ""


def test_a_service_that_gives_a_cursor_and_nothing_else_is_not_asked_for_ever(ask: Run, service: Service) -> None:
    service.says("GET", "/v1/locks", of_model(schemas.LockPage(items=[], cursor="again")))
    assert ask("locks").code == 0
    assert len(service.asked) == 1


def test_show_is_the_lock_whole(ask: Run, service: Service) -> None:
    service.says("GET", f"/v1/locks/{NEW}", of_model(lock_detail()))
    ran = ask("show", NEW)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    facts = {cell[0]: cell[1] for cell in map(cells, lines[:7])}
    assert facts["lock"] == NEW
    assert facts["requirements"] == "requests>=2"
    assert facts["constraints"] == "urllib3<3"
    assert facts["pins"] == "shop/checkout@r1"
    assert facts["indexes"] == "https://packages.example.com/simple"
    requests, urllib3 = lines[-2:]
    assert cells(requests) == ["requests", "2.34.2", "64.9 kB", "2026-11-01", "Apache-2.0", "certifi, urllib3"]
    assert cells(urllib3)[:3] == ["urllib3", "2.5.0", "64.9 kB"]


def test_show_tells_what_was_built_from_source(ask: Run, service: Service) -> None:
    body = lock_detail()
    body.packages[0].wheels = []
    body.packages[0].builds = [
        schemas.BuildDetail(
            wheel="urllib3-2.5.0-py3-none-any.whl",
            hash="sha256:" + "1" * 64,
            size=70_000,
            target="any",
            sdist="urllib3-2.5.0.tar.gz",
            sdist_url="https://packages.example.com/urllib3-2.5.0.tar.gz",
            sdist_hash="sha256:" + "2" * 64,
            requirements=OLD,
            builder="build-v1-cp311",
            reproducible=True,
            created=NOON,
            seconds=1.5,
            log="running bdist_wheel\n\x1b[2Jclears the screen",
        )
    ]
    service.says("GET", f"/v1/locks/{NEW}", of_model(body))
    lines = ask("show", NEW).out.splitlines()
    [built] = [line for line in lines if "urllib3-2.5.0-py3-none-any.whl" in line]
    assert cells(built)[1:] == ["70.0 kB", "any", "urllib3-2.5.0.tar.gz", "acacacacacac", "build-v1-cp311", "yes"]
    assert lines[-3:] == [
        "urllib3 2.5.0, what its build printed last:",
        "  running bdist_wheel",
        "   [2Jclears the screen",
    ]


def test_of_several_indexes_each_package_shows_its_own(ask: Run, service: Service) -> None:
    body = lock_detail()
    body.packages[0].index = "https://internal.example.com/simple"
    service.says("GET", f"/v1/locks/{NEW}", of_model(body))
    *_, requests, urllib3 = ask("show", NEW).out.splitlines()
    assert cells(requests)[-1] == "https://packages.example.com/simple"
    assert cells(urllib3)[-1] == "https://internal.example.com/simple"


def test_what_strangers_wrote_does_not_steer_the_terminal(ask: Run, service: Service) -> None:
    service.says("GET", f"/v1/locks/{NEW}", of_model(lock_detail()))
    ran = ask("show", NEW)
    assert "MIT [2J" in ran.out
    assert "\x1b" not in ran.out
    assert "\x1b" not in ask("show", NEW, "--json").out


@pytest.mark.parametrize("name", ["abab", "sha256:abab", "ABAB", NEW[7:40]])
def test_a_lock_is_named_by_the_beginning_of_its_digest(ask: Run, service: Service, name: str) -> None:
    service.says("GET", "/v1/locks", Pages([lock_item(OLD, []), lock_item(NEW, [])]))
    service.says("GET", f"/v1/locks/{NEW}", of_model(lock_detail()))
    ran = ask("show", name, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["digest"] == NEW


def test_a_whole_digest_is_not_looked_for(ask: Run, service: Service) -> None:
    service.says("GET", f"/v1/locks/{NEW}", of_model(lock_detail()))
    assert ask("show", NEW[7:]).code == 0
    assert service.paths == [f"GET /v1/locks/{NEW}"]


def test_a_beginning_of_several_digests_names_them(ask: Run, service: Service) -> None:
    service.says("GET", "/v1/locks", Pages([lock_item(OLD, []), lock_item(NEW, [])]))
    ran = ask("show", "a")
    assert ran.code == 64
    assert NEW in ran.err
    assert OLD in ran.err


def test_a_beginning_of_no_digest(ask: Run, service: Service) -> None:
    service.says("GET", "/v1/locks", many_locks(700))
    ran = ask("show", "ff")
    assert ran.code == 66
    assert "sha256:ff" in ran.err
    assert len(service.asked) == 2


@pytest.mark.parametrize("name", ["..", "sha256:", "sha512:ab", "xyz", NEW + "0", ""])
def test_what_begins_no_digest_at_all(ask: Run, service: Service, name: str) -> None:
    assert ask("show", name).code == 64
    assert service.asked == []


@pytest.fixture
def changes(service: Service) -> dict[str, Any]:
    body = schemas.LockDiff(
        a=OLD,
        b=NEW,
        added=[schemas.NamedVersion(name="zipp", version="3.2")],
        removed=[schemas.NamedVersion(name="chardet", version="5.1")],
        changed=[schemas.Change(**{"name": "idna", "from": "3.1", "to": "3.9"})],
    )
    said = of_model(body)
    service.says("GET", f"/v1/locks/{OLD}/diff/{NEW}", said)
    found: dict[str, Any] = json.loads(said.content)
    return found


def test_diff_is_sorted_by_name(ask: Run, changes: dict[str, Any]) -> None:
    ran = ask("diff", OLD, NEW)
    assert (ran.code, ran.err) == (0, "")
    head, _, *rows = ran.out.splitlines()
    assert cells(head) == ["package", OLD[7:19], NEW[7:19]]
    assert [cells(row) for row in rows] == [
        ["-", "chardet", "5.1"],
        ["~", "idna", "3.1", "3.9"],
        ["+", "zipp", "3.2"],
    ]
    assert rows[2].index("3.2") == rows[1].index("3.9")
    assert rows[0].index("5.1") == rows[1].index("3.1")


def test_diff_for_a_program_is_the_services_own(ask: Run, changes: dict[str, Any]) -> None:
    ran = ask("diff", OLD, NEW, "--json")
    assert json.loads(ran.out) == changes
    assert changes["changed"] == [{"name": "idna", "from": "3.1", "to": "3.9"}]


def test_diff_of_equals(ask: Run, service: Service) -> None:
    body = schemas.LockDiff(a=NEW, b=NEW, added=[], removed=[], changed=[])
    service.says("GET", f"/v1/locks/{NEW}/diff/{NEW}", of_model(body))
    ran = ask("diff", NEW, NEW)
    assert ran.code == 0
    assert "same versions" in ran.out


def test_why_is_a_tree_whose_ways_share_their_beginning(ask: Run, service: Service) -> None:
    def way(*requirements: str) -> list[schemas.WhyStep]:
        return [schemas.WhyStep(name=text.split(">")[0], requirement=text) for text in requirements]

    body = schemas.WhyAnswer(
        lock=NEW,
        package="urllib3",
        version="2.5.0",
        paths=[way("urllib3>1"), way("requests>2", "urllib3>1.2"), way("requests>2", "botocore>1", "urllib3>1.3")],
        truncated=True,
    )
    service.says("GET", f"/v1/locks/{NEW}/why/urllib3", of_model(body))
    ran = ask("why", NEW, "URLLib3")
    assert (ran.code, ran.err) == (0, "")
    top, *lines = ran.out.splitlines()
    assert top == f"urllib3 2.5.0 in lock {NEW[7:19]}"
    labels = [line.split("── ")[1] for line in lines]
    depths = [line.index("── ") for line in lines]
    assert labels[:5] == ["urllib3>1", "requests>2", "urllib3>1.2", "botocore>1", "urllib3>1.3"]
    assert depths[0] == depths[1] < depths[2] == depths[3] < depths[4]
    assert "more ways" in labels[5]
    assert json.loads(ask("why", NEW, "urllib3", "--json").out) == body.model_dump()


def test_why_of_a_package_that_is_not_there(ask: Run, service: Service) -> None:
    assert ask("why", NEW, "flask").code == 66
    assert service.paths == [f"GET /v1/locks/{NEW}/why/flask"]


def test_pins_stand_by_workload_newest_first(ask: Run, service: Service) -> None:
    items = [
        pin("shop", "web", "r9", 1),
        pin("shop", "checkout", "r1", 3),
        pin("shop", "checkout", "r2", 2, stale=True),
    ]
    items.append(pin("bank", "web", "r1", 9))
    service.says("GET", "/v1/pins", of_model(schemas.PinPage(items=items, cursor=None)))
    ran = ask("pins", "--namespace", "any")
    assert (ran.code, ran.err) == (0, "")
    head, _, *rows = ran.out.splitlines()
    assert cells(head)[:4] == ["namespace", "workload", "revision", "lock"]
    assert [cells(row)[:3] for row in rows] == [
        ["bank", "web", "r1"],
        ["shop", "checkout", "r2"],
        ["shop", "checkout", "r1"],
        ["shop", "web", "r9"],
    ]
    assert cells(rows[1])[-1] == f"stale, cp312-manylinux_2_28_aarch64: {OLD[7:19]}"
    assert cells(rows[3])[-2:] == [NEW[7:19], f"{NOON:%Y-%m-%d} 11:00"]
    assert service.asked[0].query == {"namespace": "any", "limit": "50"}


def test_pins_for_a_program_keep_the_services_order(ask: Run, service: Service) -> None:
    page = schemas.PinPage(items=[pin("shop", "web", "r9", 1), pin("bank", "web", "r1", 9)], cursor=None)
    service.says("GET", "/v1/pins", of_model(page))
    assert schemas.PinPage.model_validate(json.loads(ask("pins", "--json").out)) == page
