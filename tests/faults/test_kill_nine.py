"""A few of the kills of `python -m tests.faults.kill_nine --times 100`."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.content import Digest
from tests.faults.kill_nine import kill_nine
from tests.faults.whole import DataFolder


def test_six_kills_leave_everything_whole(tmp_path: Path) -> None:
    seen = kill_nine(times=6, seed=6, folder=tmp_path)
    print(seen)

    assert seen.startswith("seed 6: 6 kills, ")
    # And the eyes that saw nothing wrong are not blind.
    data = DataFolder(tmp_path / "data")
    data.check()
    with closing(sqlite3.connect(data.folder / "lockstep.db")) as database:
        columns = ("digest FROM bundles", "digest FROM layers", "listing FROM layers")
        names = [Digest(database.execute(f"SELECT {column}").fetchone()[0]) for column in columns]
    for name in names:
        blob = data.folder / "blobs" / "blobs-v1" / "sha256" / name.hex[:2] / name.hex
        content = blob.read_bytes()
        blob.unlink()
        with pytest.raises(AssertionError, match="is referred to, and not there"):
            data.check()
        blob.write_bytes(content[:-1])
        with pytest.raises(AssertionError, match="is not what its name says"):
            data.check()
        blob.write_bytes(content)
    data.check()
