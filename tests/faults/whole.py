"""Whether all that a data folder holds is whole: rows refer to what is there, blobs are what their names say."""

import hashlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from storage.content import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

REFERENCES = {
    # Each gives a row for each reference that dangles.
    "resolutions → locks": "SELECT lock FROM resolutions WHERE lock NOT IN (SELECT digest FROM locks)",
    "pins → locks": "SELECT lock FROM pins WHERE lock NOT IN (SELECT digest FROM locks)",
    "pin_extensions → locks": "SELECT lock FROM pin_extensions WHERE lock NOT IN (SELECT digest FROM locks)",
    "pin_extensions → pins": "SELECT pin FROM pin_extensions WHERE pin NOT IN (SELECT id FROM pins)",
    "lock_packages → locks": "SELECT lock FROM lock_packages WHERE lock NOT IN (SELECT digest FROM locks)",
    "workloads → locks": "SELECT hold_lock FROM workloads WHERE hold_lock IS NOT NULL"
    " AND hold_lock NOT IN (SELECT digest FROM locks)",
    "locks → bundles": "SELECT digest FROM locks WHERE digest NOT IN (SELECT lock FROM bundles)",
}
_TOP = {"blobs", "lockstep.db", "lockstep.db-shm", "lockstep.db-wal", "scratch-v1", "uv-cache"}


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


class DataFolder:
    """A service's data folder, looked at from outside. Remembers what it has unpacked once: blobs never change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs" / "blobs-v1"
        self._unpacked: dict[str, str] = {}

    def check(self) -> dict[str, int]:
        """While no service runs. Returns what there is; raises AssertionError for what is not whole."""
        assert {path.name for path in self.folder.iterdir()} <= _TOP
        counts = {"blobs": self._check_blobs()}
        if (self.folder / "lockstep.db").exists():
            with self._database() as database:
                counts |= self._check_rows(database)
        return counts

    def half_done(self) -> frozenset[str]:
        """The files and folders that stand where work is under way, also while it goes on."""
        staged = _names(self._blobs / "staging")
        scratch = self.folder / "scratch-v1"
        return frozenset(staged.union(*(_names(scratch / own) for own in _names(scratch))) - {".in-use"})

    def check_swept(self) -> None:
        """Once a service has started: nothing is left of those before it. An empty file that was staged waits for its
        hour, like a scratch folder that was being made."""
        assert [path.name for path in (self._blobs / "staging").iterdir() if path.stat().st_size] == []
        assert len([path for path in (self.folder / "scratch-v1").iterdir() if not path.name.startswith(".")]) == 1

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A copy: opening the one that a killed process left would repair it."""
        with tempfile.TemporaryDirectory() as name:
            for path in self.folder.glob("lockstep.db*"):
                shutil.copy(path, name)
            with closing(sqlite3.connect(Path(name, "lockstep.db"))) as database:
                yield database

    def _check_blobs(self) -> int:
        count = 0
        for path in (self._blobs / "sha256").glob("*/*"):
            with path.open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == path.name, f"{path} is not what its name says"
            assert path.parent.name == path.name[:2], path
            count += 1
        return count

    def _check_rows(self, database: sqlite3.Connection) -> dict[str, int]:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "locks" not in tables:  # killed before the first upgrade was committed
            return {}
        for what, query in REFERENCES.items():
            assert database.execute(query).fetchall() == [], f"{what}: dangling"
        for digest, content in database.execute("SELECT digest, content FROM locks"):
            assert Digest.of(content) == digest, f"lock {digest} is not what its name says"
        layers = database.execute("SELECT digest, size, diff_id, tar_size, listing FROM layers").fetchall()
        for digest, size, diff_id, tar_size, listing in layers:
            assert self._blob(digest).stat().st_size == size
            assert self._plain(digest) == f"{diff_id} {tar_size}", f"layer {digest} holds another tar than {diff_id}"
            assert json.loads(self._blob(listing).read_bytes()), f"the listing of layer {digest}"
        bundles = database.execute("SELECT digest, size FROM bundles").fetchall()
        known = {digest: diff_id for digest, _, diff_id, _, _ in layers}
        for digest, size in bundles:
            self._check_bundle(digest, size, known)
        counted = ("locks", "resolutions", "pins", "pin_extensions", "operations")
        rows = {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in counted}
        return {**rows, "layers": len(layers), "bundles": len(bundles)}

    def _check_bundle(self, digest: str, size: int, known: dict[str, str]) -> None:
        manifest = json.loads(self._blob(digest).read_bytes())
        parts = [manifest["config"], *manifest["layers"]]
        for part in parts:
            assert self._blob(part["digest"]).stat().st_size == part["size"], f"bundle {digest}"
        assert sum(part["size"] for part in parts) + self._blob(digest).stat().st_size == size, f"bundle {digest}"
        config = json.loads(self._blob(manifest["config"]["digest"]).read_bytes())
        assert config["rootfs"]["diff_ids"] == [known[part["digest"]] for part in manifest["layers"]]

    def _blob(self, digest: str) -> Path:
        path = self._blobs / "sha256" / Digest(digest).hex[:2] / Digest(digest).hex
        assert path.exists(), f"{digest} is referred to, and not there"
        return path

    def _plain(self, digest: str) -> str:
        """Digest and size of the tar that this layer holds."""
        if digest not in self._unpacked:
            plain = zstd.decompress(self._blob(digest).read_bytes())
            self._unpacked[digest] = f"{Digest.of(plain)} {len(plain)}"
        return self._unpacked[digest]
