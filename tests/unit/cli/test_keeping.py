"""`lockstep gc` and `lockstep fsck`: the settings that they are run with, what they say, how they end."""

import json

import pytest

from resolver.service.fsck import Checked, Fault
from resolver.service.retain import Collected
from resolver.settings import Settings
from storage.content import Digest
from storage.errors import StorageUnavailable
from tests.unit.cli.conftest import Run

DIGEST = Digest.of(b"blob")
COLLECTED = Collected(
    dry_run=False, marked=3, removed=2, freed=5_000_000, kept=7, kept_bytes=2_000, forgotten=1, over=0
)


def test_gc_takes_the_settings_of_serve(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Settings, bool]] = []

    def gc(settings: Settings, dry_run: bool) -> Collected:
        seen.append((settings, dry_run))
        return COLLECTED

    monkeypatch.setenv("LOCKSTEP_KEEP_REVISIONS", "3")
    # What it would take to listen there is no matter of a program that does not listen.
    monkeypatch.setenv("LOCKSTEP_LISTEN", "0.0.0.0:8080")
    ran = run("gc", "--data-dir", "/srv/lockstep", "--gc-grace", "2h", "--keep-for", "1d", "--max-store", "5000", gc=gc)
    assert (ran.code, ran.err) == (0, "")
    [(settings, dry_run)] = seen
    assert (str(settings.data_dir), settings.gc_grace, settings.keep_for) == ("/srv/lockstep", 7200, 86400)
    assert (settings.keep_revisions, settings.max_store, dry_run) == (3, 5000, False)
    run("gc", "--dry-run", gc=gc)
    assert seen[1][1]


def test_gc_says_what_it_did(run: Run) -> None:
    ran = run("gc", gc=lambda *_: COLLECTED)
    said = " ".join(ran.out.split())
    assert "removed 2 blobs, 4.8 MiB" in said or "removed 2 blobs, 5.0 MB" in said
    assert "marked 3 blobs" in said
    assert "kept 7 blobs" in said
    assert "forgotten 1 workloads" in said
    assert "over the cap" not in said
    ran = run("gc", gc=lambda *_: Collected(dry_run=True, removed=2, over=9))
    said = " ".join(ran.out.split())
    assert "would be removed 2 blobs" in said
    assert "over the cap 9 B" in said
    ran = run("gc", "--json", gc=lambda *_: COLLECTED)
    assert json.loads(ran.out) == {
        "dry_run": False,
        "marked": 3,
        "removed": 2,
        "freed": 5_000_000,
        "kept": 7,
        "kept_bytes": 2_000,
        "forgotten": 1,
        "over": 0,
    }


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([], 0),
        ([Fault("damaged", DIGEST, mended=True)], 0),
        ([Fault("damaged", DIGEST, mended=False)], 1),
        ([Fault("damaged", DIGEST, mended=True), Fault("missing", DIGEST, mended=False)], 1),
    ],
)
def test_fsck_ends_by_what_remains(run: Run, faults: list[Fault], code: int) -> None:
    ran = run("fsck", fsck=lambda *_: Checked(blobs=2, bytes=10, faults=faults))
    assert (ran.code, ran.err) == (code, "")
    for fault in faults:
        assert f"{fault.kind} {DIGEST}{' (mended)' if fault.mended else ''}" in ran.out
    ran = run("fsck", "--json", fsck=lambda *_: Checked(blobs=2, bytes=10, faults=faults))
    said = json.loads(ran.out)
    assert (ran.code, said["well"], len(said["faults"])) == (code, code == 0, len(faults))


def test_fsck_repairs_where_it_is_told_to(run: Run) -> None:
    seen: list[bool] = []

    def fsck(_: Settings, repair: bool) -> Checked:
        seen.append(repair)
        return Checked()

    run("fsck", fsck=fsck)
    run("fsck", "--repair", fsck=fsck)
    assert seen == [False, True]


@pytest.mark.parametrize("command", ["gc", "fsck"])
def test_stores_that_are_away_and_settings_that_are_none(run: Run, command: str) -> None:
    def away(*_: object) -> None:
        raise StorageUnavailable("the database does not answer: at postgresql://me:hunter2@db")

    def unusable(*_: object) -> None:
        raise ValueError("not the URL of a database")

    ran = run(command, **{command: away})
    assert (ran.code, ran.out) == (69, "")
    assert "the database does not answer" in ran.err
    assert "hunter2" not in ran.err
    assert run(command, **{command: unusable}).code == 64
    assert run(command, "--keep-for", "soon", **{command: away}).code == 64
