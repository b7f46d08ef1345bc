"""A wheel's METADATA: beside the wheel where the index serves it, out of the wheel otherwise, and about that wheel."""

import zipfile
from io import BytesIO

import pytest

from resolver.domain.errors import ContentMismatch, IndexUnavailable, InvalidWheel
from resolver.domain.ports import ProjectFile
from resolver.upstream.metadata import METADATA_LIMIT
from resolver.upstream.pages import SimplePages
from resolver.upstream.wheels import WheelDownloads
from tests.support.index import Fault, PackageIndex
from tests.support.wheels import core_metadata, make_wheel
from tests.unit.upstream.conftest import configured, reference

FILENAME, CONTENT = make_wheel("demo", "1.0", requires=["other>=2"])
METADATA = core_metadata("demo", "1.0", requires=["other>=2"])


async def published(index: PackageIndex, pages: SimplePages) -> ProjectFile:
    wheel = reference(index, FILENAME, CONTENT)
    project = await pages.reread(wheel.name, configured(index))
    assert project is not None
    return project.files[0]


@pytest.mark.parametrize("query", ["", "sig=abc"])
async def test_the_indexs_own_is_enough(
    index: PackageIndex, pages: SimplePages, downloads: WheelDownloads, query: str
) -> None:
    index.add(FILENAME, CONTENT, query=query)
    file = await published(index, pages)
    assert await downloads.metadata(reference(index, FILENAME, CONTENT), file) == METADATA
    assert index.count("/files/") == index.count(".metadata") == 1


async def test_without_it_the_wheel_is_read(index: PackageIndex, pages: SimplePages, downloads: WheelDownloads) -> None:
    index.add(FILENAME, CONTENT, metadata=False)
    wheel = reference(index, FILENAME, CONTENT)
    assert await downloads.metadata(wheel, await published(index, pages)) == METADATA
    assert await downloads.metadata(wheel, None) == METADATA
    assert index.count("/files/") == index.count(FILENAME) == 1


async def test_a_promise_without_a_hash_or_a_file_is_not_relied_on(
    index: PackageIndex, pages: SimplePages, downloads: WheelDownloads
) -> None:
    index.add(FILENAME, CONTENT)
    index.fault(".metadata", "404")
    wheel = reference(index, FILENAME, CONTENT)
    assert await downloads.metadata(wheel, await published(index, pages)) == METADATA
    assert index.requests[-2:] == [f"/files/{FILENAME}.metadata", f"/files/{FILENAME}"]


@pytest.mark.parametrize(
    ("kind", "error"), [("wrong-bytes", ContentMismatch), ("500", IndexUnavailable), ("half", IndexUnavailable)]
)
async def test_an_index_that_serves_it_wrongly_is_told(
    index: PackageIndex, pages: SimplePages, downloads: WheelDownloads, kind: Fault, error: type[Exception]
) -> None:
    index.add(FILENAME, CONTENT)
    index.fault(".metadata", kind)
    with pytest.raises(error, match=r"demo-1.0-py3-none-any.whl.metadata"):
        await downloads.metadata(reference(index, FILENAME, CONTENT), await published(index, pages))


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (core_metadata("demo", "1.1"), "METADATA says demo 1.1"),
        (core_metadata("evil", "1.0"), "METADATA says evil 1.0"),
        (core_metadata("demo", "one"), "METADATA says demo one"),
        (b"Summary: nothing\n", "METADATA has no Name or no Version"),
        (b"", "METADATA has no Name or no Version"),
        (b"\xff\xfe\x00", "METADATA has no Name or no Version"),
        (METADATA + b"\n" + b" " * METADATA_LIMIT, f"METADATA is over {METADATA_LIMIT} bytes"),
    ],
)
async def test_metadata_that_contradicts_the_lock(
    index: PackageIndex, downloads: WheelDownloads, metadata: bytes, says: str
) -> None:
    filename, content = make_wheel("demo", "1.0", metadata=metadata)
    index.add(filename, content)
    with pytest.raises(InvalidWheel, match=says):
        await downloads.metadata(reference(index, filename, content), None)


async def test_names_and_versions_are_compared_as_the_standards_say(
    index: PackageIndex, downloads: WheelDownloads
) -> None:
    filename, content = make_wheel("demo-app", "1.0", metadata=core_metadata("Demo.App", "1.0.0"))
    index.add(filename, content)
    assert b"Demo.App" in await downloads.metadata(reference(index, filename, content), None)


def zipped(paths: list[str]) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in paths:
            archive.writestr(path, METADATA)
    return content.getvalue()


def encrypted() -> bytes:
    content = bytearray(zipped(["demo-1.0.dist-info/METADATA"]))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no zip", "cannot be read: BadZipFile"),
        (CONTENT[: len(CONTENT) // 2], "cannot be read: BadZipFile"),
        (zipped(["demo/__init__.py"]), "no METADATA"),
        (zipped(["demo/x.dist-info/METADATA"]), "no METADATA"),
        (zipped(["demo-1.0.dist-info/METADATA", "other-1.0.dist-info/METADATA"]), "2 METADATA"),
        (zipped(["demo-1.0.dist-info/METADATA"]).replace(b"Summary", b"Tummary"), "cannot be read: BadZipFile"),
        (encrypted(), "cannot be read: RuntimeError"),
    ],
)
async def test_a_wheel_that_is_none(index: PackageIndex, downloads: WheelDownloads, content: bytes, says: str) -> None:
    index.add(FILENAME, content, metadata=False)
    with pytest.raises(InvalidWheel, match=says):
        await downloads.metadata(reference(index, FILENAME, content), None)
