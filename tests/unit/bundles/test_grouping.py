"""Above 100 layers the small ones are merged, and nothing that a bundle's user sees is another for it."""

import itertools
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from backports import zstd

from resolver.bundles.builder import ProcessLayerBuilder
from resolver.bundles.grouping import MOST, grouped
from resolver.bundles.manifest import assemble, layer_order
from resolver.bundles.merge import merge
from resolver.bundles.pack import Packed
from resolver.client.unpack import unpack
from resolver.domain.errors import DamagedLayer
from resolver.domain.targets import TargetEnvironment
from storage.content import Digest
from tests.unit.bundles.support import pack

TARGET = TargetEnvironment.from_platform("3.12", "musllinux_1_2_x86_64")
HOOK = "pth-hook"


@dataclass(frozen=True)
class Layer:
    tar_size: int


def layers(count: int, seed: int = 1) -> list[tuple[str, Layer]]:
    numbers = random.Random(seed)
    return [(f"p{number:03}-1.0-py3-none-any.whl", Layer(numbers.randrange(1000))) for number in range(count)]


class TestRule:
    @pytest.mark.parametrize("count", [0, 1, 99, MOST])
    def test_up_to_the_most_each_stands_alone(self, count: int) -> None:
        given = layers(count)
        assert grouped(given) == [[named] for named in given]

    @pytest.mark.parametrize(("count", "seed"), [*itertools.product([MOST + 1, 150, 300, 1000], range(5))])
    def test_above_it_never_more_in_their_order_and_none_is_lost(self, count: int, seed: int) -> None:
        given = [*layers(count, seed), (HOOK, Layer(1))]
        groups = grouped(given)
        assert len(groups) <= MOST
        flat = [named for group in groups for named in group]
        assert flat == sorted(given, key=lambda named: layer_order(named[0]))
        merged = max(layer.tar_size for group in groups if len(group) > 1 for _, layer in group)
        assert sum(layer.tar_size > merged for _, layer in flat) <= sum(len(group) == 1 for group in groups)

    def test_it_depends_on_nothing_but_the_layers(self) -> None:
        given = [*layers(200), (HOOK, Layer(1))]
        expected = grouped(given)
        for seed in range(10):
            shuffled = given.copy()
            random.Random(seed).shuffle(shuffled)
            assert grouped(shuffled) == expected

    def test_of_equal_sizes_too(self) -> None:
        given = [(name, Layer(5)) for name, _ in layers(200)]
        assert grouped(given[::-1]) == grouped(given)

    def test_a_small_change_leaves_the_other_layers_as_they_are(self) -> None:
        given = layers(300)
        smallest = min(range(300), key=lambda number: given[number][1].tar_size)
        name, layer = given[smallest]
        changed = [*given[:smallest], (name.replace("-1.0-", "-1.1-"), layer), *given[smallest + 1 :]]
        before, after = ({tuple(group) for group in map(tuple, grouped(each))} for each in (given, changed))
        assert len(before - after) == 1


def packed(folder: Path, name: str, files: dict[str, bytes]) -> tuple[Path, Packed]:
    tree = folder / f"{name}-tree"
    tree.mkdir()
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
        (tree / path).chmod(0o755 if path.startswith("bin/") else 0o644)
    target = folder / name
    return target, pack(tree, target)


GIVEN: list[dict[str, bytes]] = [
    {"site-packages/a/__init__.py": b"a", "site-packages/shared.py": b"of a", "bin/tool": b"old"},
    {"site-packages/b.py": b"b", "site-packages/shared.py": b"of b", "site-packages/kind/inner.py": b"folder here"},
    {"site-packages/kind": b"file there", "bin/tool": b"new", "site-packages/other/x.py": b"x"},
    {"site-packages/other": b"file", "site-packages/ünïcode/" + "n" * 120 + ".py": b"long"},
    {"site-packages/other/y.py": b"folder again", "site-packages/p.pth": b"beside\n"},
]


def tree_of(tar: Path, folder: Path) -> dict[str, tuple[bytes, int]]:
    """What a client sees of a layer."""
    folder.mkdir()
    with zstd.open(tar, "rb") as stream:
        unpack(stream, str(folder))
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestMerging:
    def test_a_merged_layer_is_the_layers_over_each_other(self, tmp_path: Path) -> None:
        given = [packed(tmp_path, f"layer{number}", files) for number, files in enumerate(GIVEN)]
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        merged = merge([(path, layer.diff_id) for path, layer in given], scratch, tmp_path / "merged")
        assert Digest.of((tmp_path / "merged").read_bytes()) == merged.digest
        found = tree_of(tmp_path / "merged", tmp_path / "tree")
        assert found == {
            "bin/tool": (b"new", 0o755),
            "site-packages/a/__init__.py": (b"a", 0o644),
            "site-packages/b.py": (b"b", 0o644),
            "site-packages/kind": (b"file there", 0o644),
            "site-packages/other/y.py": (b"folder again", 0o644),
            "site-packages/p.pth": (b"beside\n", 0o644),
            "site-packages/shared.py": (b"of b", 0o644),
            "site-packages/ünïcode/" + "n" * 120 + ".py": (b"long", 0o644),
        }
        assert merged.listing.keys() == found.keys()
        assert merged.unpacked_size == sum(len(content) for content, _ in found.values())

    def test_it_is_what_packing_the_tree_would_have_been(self, tmp_path: Path) -> None:
        """Of layers that share nothing: the same bytes as of one wheel that had all of it."""
        apart = [{f"site-packages/p{number}/x.py": b"%d" % number} for number in range(5)]
        given = [packed(tmp_path, f"layer{number}", files) for number, files in enumerate(apart)]
        together = packed(tmp_path, "together", {path: content for files in apart for path, content in files.items()})
        (tmp_path / "scratch").mkdir()
        parts = [(path, layer.diff_id) for path, layer in given]
        assert merge(parts, tmp_path / "scratch", tmp_path / "merged") == together[1]

    async def test_a_worker_does_it_and_finds_damage(self, tmp_path: Path) -> None:
        given = [packed(tmp_path, f"layer{number}", files) for number, files in enumerate(GIVEN)]
        parts = [(path, layer.diff_id) for path, layer in given]
        builder = ProcessLayerBuilder({})
        try:
            built = [await builder.merge(parts, "3.12", tmp_path) for _ in range(2)]
            assert built[0].digest == built[1].digest == Digest.of(built[0].path.read_bytes())
            assert (built[0].has_pth, built[0].has_bytecode) == (True, False)
            content = bytearray(parts[1][0].read_bytes())
            for damaged in (
                bytes(content[:-9]),
                bytes(content[:20]) + b"x" + bytes(content[21:]),
                given[0][0].read_bytes(),
            ):
                parts[1][0].write_bytes(damaged)
                with pytest.raises(DamagedLayer):
                    await builder.merge(parts, "3.12", tmp_path)
            assert not list(tmp_path.glob(".layer-*"))
        finally:
            await builder.close()


def test_a_group_says_which_wheels_it_is(tmp_path: Path) -> None:
    _, one = packed(tmp_path, "one", {"site-packages/a.py": b"a"})
    names = ("a-1-py3-none-any.whl", "b-1-py3-none-any.whl")
    image = assemble(TARGET, [(("c-1-py3-none-any.whl",), one), (names, one)], bytecode=True)
    found = [layer["annotations"] for layer in json.loads(image.manifest)["layers"]]
    assert found == [{"dev.lockstep.wheels": " ".join(names)}, {"dev.lockstep.wheel": "c-1-py3-none-any.whl"}]


def test_a_layer_is_a_tar_of_files_and_folders(tmp_path: Path) -> None:
    path, _ = packed(tmp_path, "one", GIVEN[0])
    (tmp_path / "scratch").mkdir()
    _, layer = packed(tmp_path, "two", GIVEN[1])
    first = packed(tmp_path, "three", GIVEN[0])
    merge([(path, first[1].diff_id), (tmp_path / "two", layer.diff_id)], tmp_path / "scratch", tmp_path / "merged")
    with zstd.open(tmp_path / "merged", "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 315532800)}
