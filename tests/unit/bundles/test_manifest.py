"""A bundle's manifest: what OCI asks for, and equal bytes for equal content."""

import itertools
import json
from dataclasses import dataclass

from resolver.bundles.manifest import Conflict, assemble, path_conflicts
from resolver.domain.targets import TargetEnvironment
from storage.content import Digest

TARGET = TargetEnvironment.from_platform("3.12", "musllinux_1_2_x86_64")


@dataclass(frozen=True)
class Facts:
    digest: Digest
    size: int
    diff_id: Digest


def facts(text: str) -> Facts:
    return Facts(Digest.of(text.encode()), len(text), Digest.of(text.encode() + b".tar"))


LAYERS = [
    ((name,), facts(name))
    for name in (
        "Zope.interface-1.0-py3-none-any.whl",
        "requests-2.0-py3-none-any.whl",
        "requests_oauthlib-1.0-py3-none-any.whl",
        "aiohttp-3.0-py3-none-any.whl",
        "a-hook",
    )
]
ORDER = [
    "aiohttp-3.0-py3-none-any.whl",
    "requests-2.0-py3-none-any.whl",
    "requests_oauthlib-1.0-py3-none-any.whl",
    "Zope.interface-1.0-py3-none-any.whl",
    "a-hook",
]


def test_manifest_is_an_oci_image() -> None:
    image = assemble(TARGET, LAYERS, bytecode=True)
    manifest, config = json.loads(image.manifest), json.loads(image.config)
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": Digest.of(image.config),
        "size": len(image.config),
    }
    by_name = {name: layer for (name,), layer in LAYERS}
    assert manifest["layers"] == [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "digest": by_name[name].digest,
            "size": by_name[name].size,
            "annotations": {"dev.lockstep.wheel": name},
        }
        for name in ORDER
    ]
    assert manifest["annotations"] == {
        "dev.lockstep.python": "3.12",
        "dev.lockstep.platform": "musllinux_1_2_x86_64",
        "dev.lockstep.bytecode": "cpython-312",
    }
    assert (config["architecture"], config["os"], config["rootfs"]["type"]) == ("amd64", "linux", "layers")
    assert config["rootfs"]["diff_ids"] == [by_name[name].diff_id for name in ORDER]
    assert (image.digest, image.config_digest) == (Digest.of(image.manifest), Digest.of(image.config))
    assert image.blobs == ((image.config_digest, image.config), (image.digest, image.manifest))


def test_same_layers_in_any_order_are_the_same_bytes() -> None:
    assert {assemble(TARGET, order, bytecode=True).manifest for order in itertools.permutations(LAYERS)} == {
        assemble(TARGET, LAYERS, bytecode=True).manifest
    }


def test_what_differs_shows_in_the_digest() -> None:
    arm = TargetEnvironment.from_platform("3.12", "musllinux_1_2_aarch64")
    images = [
        assemble(TARGET, LAYERS, bytecode=True),
        assemble(TARGET, LAYERS, bytecode=False),
        assemble(TARGET, LAYERS[:-1], bytecode=True),
        assemble(arm, LAYERS, bytecode=True),
    ]
    assert len({image.digest for image in images}) == len(images)
    assert json.loads(images[1].manifest)["annotations"]["dev.lockstep.bytecode"] == "none"
    assert json.loads(images[3].config)["architecture"] == "arm64"


def test_bytes_are_canonical() -> None:
    image = assemble(TARGET, LAYERS, bytecode=True)
    for content in (image.manifest, image.config):
        assert content == json.dumps(json.loads(content), sort_keys=True, separators=(",", ":")).encode()


def test_empty_bundle_has_one_empty_layer() -> None:
    image = assemble(TARGET, [], bytecode=True)
    (layer,) = json.loads(image.manifest)["layers"]
    empty = bytes(1024)
    assert layer == {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest.of(empty), "size": 1024}
    assert json.loads(image.config)["rootfs"]["diff_ids"] == [layer["digest"]]
    assert image.blobs[0] == (Digest.of(empty), empty)
    assert image.blobs[-1] == (image.digest, image.manifest)


class TestPathConflicts:
    def test_equal_content_is_none(self) -> None:
        assert (
            path_conflicts([("a-1-x.whl", {"site-packages/t.py": "1"}), ("b-1-x.whl", {"site-packages/t.py": "1"})])
            == []
        )

    def test_different_content_names_all_in_their_order(self) -> None:
        listings = [
            (f"{name}-1-x.whl", {"site-packages/t.py": content, f"bin/{name}": "0"})
            for name, content in (("c", "2"), ("a", "1"), ("b", "1"))
        ]
        assert path_conflicts(listings) == [Conflict("site-packages/t.py", ("a-1-x.whl", "b-1-x.whl", "c-1-x.whl"))]

    def test_file_here_and_folder_there(self) -> None:
        listings = [("b-1-x.whl", {"site-packages/t": "1"}), ("a-1-x.whl", {"site-packages/t/deep/x.py": "1"})]
        conflict = Conflict("site-packages/t", ("a-1-x.whl", "b-1-x.whl"), kinds_differ=True)
        assert path_conflicts(listings) == [conflict]

    def test_shared_folders_are_none(self) -> None:
        listings = [("a-1-x.whl", {"site-packages/ns/a.py": "1"}), ("b-1-x.whl", {"site-packages/ns/b.py": "2"})]
        assert path_conflicts(listings) == []

    def test_bytecode_follows_its_source(self) -> None:
        cached = "site-packages/tests/__pycache__/__init__.cpython-312.pyc"
        listings = [(f"{name}-1-x.whl", {"site-packages/tests/__init__.py": "1", cached: name}) for name in "ab"]
        assert path_conflicts(listings) == []
