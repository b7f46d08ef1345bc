"""The blob store that a setting names."""

from pathlib import Path

from storage.blobs.filesystem import FilesystemBlobStore
from storage.blobs.object_store import ObjectBlobStore


async def open_blob_store(where: str | Path, scratch: Path) -> FilesystemBlobStore | ObjectBlobStore:
    """The store in a bucket (`s3://bucket/prefix`, `gs://…`, `az://…`) or in a folder (its path). `scratch` is a folder
    that exists, for files while they are used.

    Raises:
        StorageFull, StorageUnavailable: the folder cannot be made ready. A bucket is not asked yet.
        ValueError: the URL, or the variables that go with it, are wrong; neither is shown.
    """
    if isinstance(where, str) and "://" in where:
        return ObjectBlobStore.open(where, scratch)
    return await FilesystemBlobStore.open(Path(where))
