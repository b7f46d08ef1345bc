"""What a layer's tar may hold, and what it may not."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.client.unpack import InvalidLayer, unpack
from tests.support.bundle_server import MTIME, make_tar

LONG = "site-packages/" + "/".join(["a-folder-with-a-long-name"] * 10) + "/module.py"
NESTED = "site-packages/" + "n" * 90 + "/" + "m" * 90 + ".py"  # fits ustar's prefix and name
GOOD = {"site-packages/demo/__init__.py": b"x = 1\n"}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def unpacked(content: bytes, folder: Path) -> dict[str, bytes]:
    unpack([content], str(folder))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_and_folders_in_every_form_of_tar(tmp_path: Path, form: int) -> None:
    files = {
        "site-packages/demo/__init__.py": b"x = 1\n",
        "site-packages/demo/empty": b"",
        "site-packages/demo/blob.bin": bytes(range(256)) * 4096,
        "site-packages/exactly-a-block": b"b" * 512,
        "site-packages/naïve.txt": b"not ASCII",
        NESTED: b"nested",
    } | ({} if form == tarfile.USTAR_FORMAT else {LONG: b"long"})
    assert unpacked(make_tar(files, form=form), tmp_path) == files


@pytest.mark.parametrize("size", [1, 511, 512, 513, 4096])
def test_it_does_not_matter_where_a_piece_ends(tmp_path: Path, size: int) -> None:
    files = {
        LONG: b"long",
        "site-packages/a.bin": bytes(range(256)) * 9,
        "site-packages/empty": b"",
        "bin/b": b"b" * 512,
    }
    content = make_tar(files)
    buffer = bytearray(size)  # as it is received: each piece stands where the one before stood

    def pieces() -> Iterator[memoryview]:
        for start in range(0, len(content), size):
            piece = content[start : start + size]
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]

    unpack(pieces(), str(tmp_path))
    assert {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    } == files


def test_modes_and_times_are_the_layers(tmp_path: Path) -> None:
    odd = {"bin/run": (b"#!", 0o4711), "site-packages/read.py": (b"", 0o400), "site-packages/open.py": (b"", 0o666)}
    unpacked(make_tar(odd), tmp_path)
    modes = {str(path.relative_to(tmp_path)): oct(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {
        "bin": "0o40755",
        "bin/run": "0o100755",
        "site-packages": "0o40755",
        "site-packages/open.py": "0o100644",
        "site-packages/read.py": "0o100644",
    }
    assert (tmp_path / "bin/run").stat().st_mtime == MTIME


def test_folders_need_not_be_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member("site-packages/a/b/c.py"))
    assert unpacked(buffer.getvalue(), tmp_path) == {"site-packages/a/b/c.py": b""}


def test_an_archive_without_files(tmp_path: Path) -> None:
    assert unpacked(make_tar({}), tmp_path) == {}


HOSTILE = {
    "a symbolic link": make_tar(GOOD, (member("site-packages/l", tarfile.SYMTYPE, "/etc"),)),
    "a hard link": make_tar(GOOD, (member("site-packages/l", tarfile.LNKTYPE, "site-packages/demo/__init__.py"),)),
    "a character device": make_tar(GOOD, (member("site-packages/d", tarfile.CHRTYPE),)),
    "a block device": make_tar(GOOD, (member("site-packages/d", tarfile.BLKTYPE),)),
    "a pipe": make_tar(GOOD, (member("site-packages/p", tarfile.FIFOTYPE),)),
    "a GNU sparse file": make_tar(GOOD, (member("site-packages/s", tarfile.GNUTYPE_SPARSE),)),
    "an unknown type": make_tar(GOOD, (member("site-packages/u", b"Z"),)),
    "an absolute path": make_tar(GOOD, (member("/site-packages/x"),)),
    "a path that climbs": make_tar(GOOD, (member("site-packages/../../x"),)),
    "a path that stays": make_tar(GOOD, (member("./site-packages/x"),)),
    "an empty part": make_tar(GOOD, (member("site-packages//x"),)),
    "another root": make_tar(GOOD, (member("etc/passwd"),)),
    "our own record": make_tar(GOOD, (member(".lockstep.json"),)),
    "a root that is a file": make_tar({}, (member("site-packages"),)),
    "a folder that climbs": make_tar(GOOD, (member("site-packages/../..", tarfile.DIRTYPE),)),
    "a folder that is a link": make_tar(
        GOOD, (member("site-packages/l", tarfile.SYMTYPE, "/tmp"), member("site-packages/l/x"))
    ),
    "a hard link to what is outside": make_tar(GOOD, (member("bin/l", tarfile.LNKTYPE, "/etc/passwd"),)),
    "nothing but dots": make_tar(GOOD, (member("..", tarfile.DIRTYPE),)),
    "a global pax header": make_tar(GOOD, (member("site-packages/g", tarfile.XGLTYPE),)),
    "a GNU long link": make_tar(GOOD, (member("././@LongLink", tarfile.GNUTYPE_LONGLINK),)),
    "a contiguous file": make_tar(GOOD, (member("site-packages/c", tarfile.CONTTYPE),)),
    "a file twice": make_tar(GOOD, (member("site-packages/demo/__init__.py"),)),
    "a file, then a folder": make_tar(GOOD, (member("site-packages/demo/__init__.py", tarfile.DIRTYPE),)),
    "a folder, then a file": make_tar(GOOD, (member("site-packages/demo"),)),
    "a file as a folder": make_tar(GOOD, (member("site-packages/demo/__init__.py/x.py"),)),
    "no end": make_tar(GOOD).rstrip(b"\0"),
    "half a file": make_tar({"site-packages/x": b"x" * 10_000})[:4096],
    "more behind the end": make_tar(GOOD) + make_tar(GOOD),
    "no tar": b"PK\x03\x04" + b"garbage" * 1000,
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_and_reach_nothing_outside(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    with pytest.raises(InvalidLayer):
        unpack([content], str(folder))
    assert {path.name for path in tmp_path.rglob("*")} <= {"in", "side", "site-packages", "demo", "__init__.py", "x"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def pax(records: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = member("site-packages/x")
        info.pax_headers = records
        tar.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "records",
    [
        {"path": "../x"},
        {"path": "/etc/passwd"},
        {"path": "site-packages/a\0b"},
        {"GNU.sparse.major": "1"},
        {"comment": "c" * 100_000},
        {"size": "99999999999999999999"},
        {"size": "100000"},
    ],
    ids=["climbs", "absolute", "NUL", "sparse", "endless", "a size beyond all", "a size beyond the end"],
)
def test_hostile_pax_headers_are_refused(tmp_path: Path, records: dict[str, str]) -> None:
    with pytest.raises(InvalidLayer):
        unpack([pax(records)], str(tmp_path))


@given(position=st.integers(0, 1023), byte=st.integers(0, 255))
def test_a_changed_header_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    content = bytearray(make_tar(GOOD))
    content[position] = byte
    folder = tmp_path_factory.mktemp("changed")
    try:
        found = unpacked(bytes(content), folder)
    except InvalidLayer:
        return
    assert found == GOOD


@given(content=st.binary(max_size=2048))
def test_no_bytes_make_it_stumble(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    with pytest.raises(InvalidLayer):
        unpack([content + b"\1"], str(tmp_path_factory.mktemp("random")))
