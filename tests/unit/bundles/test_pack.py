"""A tree's tar depends on the tree alone."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

from storage.content import Digest
from tests.unit.bundles.support import extract, files_of, pack, plain_tar

LONG = "site-packages/" + "/".join(["a-folder-with-a-long-name-of-its-own"] * 8) + "/naïve.py"


def grow(tree: Path, *, reverse: bool = False) -> Path:
    files = {
        "site-packages/demo/__init__.py": b"x = 1\n",
        "site-packages/demo-data/b": b"",
        "site-packages/demo/data/blob": bytes(range(256)) * 9000,
        LONG: b"long",
        "bin/tool": b"#!/bin/sh\n",
    }
    for name in sorted(files, reverse=reverse):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
    (tree / "bin/tool").chmod(0o755)
    return tree


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    tree = grow(tmp_path / "tree")
    packed = pack(tree, tmp_path / "layer")
    content, tar = (tmp_path / "layer").read_bytes(), plain_tar(tmp_path / "layer")
    assert (packed.digest, packed.size) == (Digest.of(content), len(content))
    assert (packed.diff_id, packed.tar_size) == (Digest.of(tar), len(tar))
    files = {path: body for path, (body, _) in files_of(tree).items()}
    assert packed.unpacked_size == sum(map(len, files.values()))
    assert packed.listing == {path: hashlib.sha256(body).hexdigest()[:16] for path, body in files.items()}
    assert files_of(extract(tmp_path / "layer", tmp_path / "out")) == files_of(tree)


def test_same_tree_is_same_bytes_whatever_made_it(tmp_path: Path) -> None:
    first = pack(grow(tmp_path / "a"), tmp_path / "layer-a")
    other = grow(tmp_path / "deeper/under/b", reverse=True)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() or path.name == "tool" else 0o600)
    if os.geteuid() == 0:
        os.chown(other / "bin/tool", 1234, 1234)
    assert pack(other, tmp_path / "layer-b") == first
    assert (tmp_path / "layer-a").read_bytes() == (tmp_path / "layer-b").read_bytes()


def test_members_are_plain_and_in_order(tmp_path: Path) -> None:
    pack(grow(tmp_path / "tree"), tmp_path / "layer")
    with tarfile.open(fileobj=io.BytesIO(plain_tar(tmp_path / "layer"))) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert LONG in names
    seen = {""}
    for member in members:
        assert member.name.rpartition("/")[0] in seen
        seen.add(member.name)
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 315532800)
        assert member.isdir() or member.isfile()
        assert member.mode == (0o755 if member.isdir() or member.name == "bin/tool" else 0o644)


def test_empty_tree_is_an_empty_tar(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    packed = pack(tmp_path / "tree", tmp_path / "layer")
    assert (packed.listing, packed.unpacked_size) == ({}, 0)
    assert plain_tar(tmp_path / "layer") == bytes(packed.tar_size)
