"""Wheels that nobody should install: each is refused with its reason, and leaves nothing behind."""

import os
import random
import stat
import zipfile
from pathlib import Path

import pytest

from resolver.bundles.archive import Limits
from resolver.bundles.compilers import Compilers
from resolver.bundles.job import LayerJob
from resolver.bundles.layer import build_layer
from resolver.domain.errors import InvalidWheel
from tests.support.wheels import make_wheel
from tests.unit.bundles.support import DEMO, METADATA, MINOR, WHEEL, put, raw_wheel, record, unpack


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def with_nul() -> bytes:
    # zipfile cuts a name at its NUL when it writes as well, so the byte is put in afterwards.
    return raw_wheel(("demo/x_y.py", b"")).replace(b"demo/x_y.py", b"demo/x\0y.py")


def not_utf8() -> bytes:
    # The flag that says UTF-8 is left unset by zipfile for a name that is ASCII, as this one was.
    return raw_wheel(("demo/x_y.py", b"")).replace(b"demo/x_y.py", b"demo/x\xffy.py")


def entry_points(text: str) -> bytes:
    return raw_wheel(("demo-1.0.dist-info/entry_points.txt", text.encode()))


def encrypted() -> bytes:
    content = bytearray(raw_wheel())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        content[at + offset] |= 1
    return bytes(content)


def other_compression() -> bytes:
    content = bytearray(raw_wheel())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.find(signature)
        content[at + offset] = 14
    return bytes(content)


DIST_INFO = "demo-1.0.dist-info"
OTHERS_RECORDED = record([(f"{DIST_INFO}/METADATA", METADATA), (f"{DIST_INFO}/WHEEL", WHEEL)])
WRONG_RECORD = OTHERS_RECORDED + record([("demo/__init__.py", b"x")])
# installer asks for no hash of a signature, in whatever folder under .dist-info.
SIGNED = raw_wheel(
    (f"{DIST_INFO}/deep/RECORD.jws", b"x"),
    replaced={"RECORD": OTHERS_RECORDED + record([("demo/__init__.py", b"")], "unused")},
)
MD5_RECORD = OTHERS_RECORDED + b"demo/__init__.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0\n"

HOSTILE: dict[str, tuple[bytes, str]] = {
    "parent": (raw_wheel(("demo/../../evil.py", b"")), r"'\.\.' parts"),
    "parent first": (raw_wheel(("../evil.py", b"")), r"'\.\.' parts"),
    "absolute": (raw_wheel(("/etc/evil", b"")), "is absolute"),
    "dot": (raw_wheel(("demo/./evil.py", b"")), "parts"),
    "empty part": (raw_wheel(("demo//evil.py", b"")), "parts"),
    "parent in .data": (raw_wheel(("demo-1.0.data/scripts/../../../evil", b"")), r"'\.\.' parts"),
    "backslash": (raw_wheel(("demo\\evil.py", b"")), "backslash"),
    "newline": (raw_wheel(("demo/a\n/etc/evil.py", b"")), "control characters"),
    "nul": (with_nul(), "control characters"),
    "not utf-8": (not_utf8(), "utf-8"),
    "long name": (raw_wheel(("demo/" + "x" * 256, b"")), "too long"),
    "long path": (raw_wheel(("x" * 200 + ("/" + "y" * 200) * 6, b"")), "too long"),
    "symlink": (raw_wheel((special("demo/link", stat.S_IFLNK | 0o777), b"/etc/passwd")), "link or a special file"),
    "fifo": (raw_wheel((special("demo/fifo", stat.S_IFIFO | 0o644), b"")), "link or a special file"),
    "device": (raw_wheel((special("demo/null", stat.S_IFCHR | 0o666), b"")), "link or a special file"),
    "file said to be a folder": (raw_wheel((special("demo/f", stat.S_IFDIR | 0o755), b"x")), "link or a special file"),
    "file and folder": (raw_wheel(("demo/a", b""), ("demo/a/b.py", b"")), "both as a file and as a folder"),
    "file and empty folder": (raw_wheel(("demo/a", b""), (special("demo/a/", stat.S_IFDIR), b"")), "'demo/a' twice"),
    "file and file of .data": (raw_wheel(("demo-1.0.data/purelib/demo/__init__.py", b"x")), "two of its files"),
    "file and folder of .data": (raw_wheel(("demo-1.0.data/purelib/demo", b"x")), "two of its files"),
    "no scheme": (raw_wheel(("demo-1.0.data/evil", b"")), "no folder of a scheme"),
    "unknown scheme": (raw_wheel(("demo-1.0.data/root/evil", b"")), "valid .data subdirectory"),
    "not in RECORD": (raw_wheel(("demo/evil.py", b""), recorded=False), "not mentioned in RECORD"),
    "wrong hash": (raw_wheel(replaced={"RECORD": WRONG_RECORD}), "not what RECORD says"),
    "weak hash": (raw_wheel(replaced={"RECORD": MD5_RECORD}), "no sha256 or better"),
    "no hash": (raw_wheel(replaced={"RECORD": OTHERS_RECORDED + b"demo/__init__.py,,\n"}), "not included in RECORD"),
    "signature of RECORD, elsewhere": (SIGNED, "no sha256 or better"),
    "RECORD of garbage": (raw_wheel(replaced={"RECORD": b"\xff\xfe,\n"}), "RECORD"),
    "no RECORD": (raw_wheel(without="RECORD"), "has no demo-1.0.dist-info/RECORD"),
    "no WHEEL": (raw_wheel(without="WHEEL"), "has no demo-1.0.dist-info/WHEEL"),
    "no METADATA": (raw_wheel(without="METADATA"), "has no demo-1.0.dist-info/METADATA"),
    "Wheel-Version 2": (raw_wheel(replaced={"WHEEL": WHEEL.replace(b"1.0", b"2.0")}), "Wheel-Version"),
    "no Wheel-Version": (raw_wheel(replaced={"WHEEL": b"Root-Is-Purelib: true\n"}), "Wheel-Version"),
    "another name": (raw_wheel(replaced={"METADATA": METADATA.replace(b"demo", b"other")}), "is of 'other 1.0'"),
    "another version": (raw_wheel(replaced={"METADATA": METADATA.replace(b"1.0", b"2.0")}), "is of 'demo 2.0'"),
    "no version": (raw_wheel(replaced={"METADATA": b"Metadata-Version: 2.1\nName: demo\n"}), "version"),
    "two dist-infos": (raw_wheel(("other-1.0.dist-info/METADATA", b"")), "exactly one .dist-info"),
    "entry point with a slash": (entry_points("[console_scripts]\n../evil = demo:main\n"), "no name for a script"),
    "entry point named ..": (entry_points("[console_scripts]\n.. = demo:main\n"), "no name for a script"),
    "entry point with code": (entry_points("[console_scripts]\nx = demo:main();evil\n"), "no module:attribute"),
    "entry points of garbage": (entry_points("][\n"), "section header"),
    "encrypted": (encrypted(), "encrypted"),
    "other compression": (other_compression(), "compressed by a method"),
    "no zip": (b"PK nothing", "not a zip file"),
    "half a zip": (raw_wheel()[:-60], "not a zip file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_wheel_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[case]
    wheel = put(tmp_path / "store", (DEMO, content))
    folder = tmp_path / "a" / "b" / "work"
    folder.mkdir(parents=True)
    job = LayerJob(str(wheel), DEMO, MINOR, None, str(folder), "token", compilers=1)
    with pytest.raises(InvalidWheel, match=reason) as caught:
        build_layer(job, Compilers())
    assert caught.value.file == DEMO
    assert str(tmp_path) not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["store", wheel.name, "a", "b", "work"])


def test_same_entry_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = raw_wheel(("demo/__init__.py", b"other"))
    with pytest.raises(InvalidWheel, match="twice"):
        unpack(put(tmp_path, (DEMO, content)), DEMO, MINOR, tmp_path / "tree")


def test_wheel_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    wheel = put(tmp_path, (DEMO, raw_wheel()))
    for filename in ("other-1.0-py3-none-any.whl", "demo-1.1-py3-none-any.whl", "demo.whl", "demo-1.0.tar.gz"):
        with pytest.raises(InvalidWheel):
            unpack(wheel, filename, MINOR, tmp_path / "tree")


class TestExpansion:
    BOMB = raw_wheel(("demo/zeros", bytes(3 << 20)))

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (Limits(unpacked=1 << 20), "expands to more than 1048576 bytes"),
            (Limits(ratio=5, floor=1 << 10), "expands to more than"),
            (Limits(entries=4), "more than 4 entries"),
        ],
    )
    def test_wheel_beyond_a_limit_is_refused(self, limits: Limits, reason: str, tmp_path: Path) -> None:
        with pytest.raises(InvalidWheel, match=reason):
            unpack(put(tmp_path, (DEMO, self.BOMB)), DEMO, MINOR, tmp_path / "tree", limits)
        written = sum(path.stat().st_size for path in tmp_path.rglob("zeros"))
        assert written <= 1 << 20

    def test_wheel_within_the_limits_is_installed(self, tmp_path: Path) -> None:
        unpack(put(tmp_path, (DEMO, self.BOMB)), DEMO, MINOR, tmp_path / "tree", Limits(unpacked=4 << 20))
        assert (tmp_path / "tree/site-packages/demo/zeros").stat().st_size == 3 << 20

    def test_what_the_archive_says_of_its_sizes_is_not_believed(self, tmp_path: Path) -> None:
        size = (3 << 20).to_bytes(4, "little")
        lying = self.BOMB.replace(size, (100).to_bytes(4, "little"))
        assert lying != self.BOMB
        with pytest.raises(InvalidWheel):
            unpack(put(tmp_path, (DEMO, lying)), DEMO, MINOR, tmp_path / "tree", Limits(unpacked=1 << 20))


def test_wheel_with_flipped_bytes_is_invalid_or_installs_as_it_was(tmp_path: Path) -> None:
    """Whatever an archive is made of, `unpack` answers with a tree or with InvalidWheel, and stays in its folder."""
    _, content = make_wheel(
        "demo", "1.0", entry_points="[console_scripts]\ndemo = demo:main\n", data={"scripts/x": "#!python\n"}
    )
    dice = random.Random(7)
    outcomes = set()
    for number in range(1500):
        mutated = bytearray(content)
        for _ in range(dice.randint(1, 4)):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        wheel = tmp_path / "wheel"
        wheel.write_bytes(mutated)
        try:
            unpack(wheel, DEMO, MINOR, tmp_path / f"tree{number}")
            outcomes.add("installed")
        except InvalidWheel:
            outcomes.add("refused")
    assert outcomes == {"installed", "refused"}
    assert {path for path in os.listdir(tmp_path) if not path.startswith("tree")} == {"wheel"}
