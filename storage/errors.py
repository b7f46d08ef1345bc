"""What can go wrong in a store.

StorageError
├── BlobNotFound        no content has this digest here
├── DigestMismatch      what was written is not what the digest names
├── StorageFull         no room left; nothing was kept
├── LeaseLost           the lease that a write was made under is another's by now; nothing was written
└── StorageUnavailable  the database or the blob store cannot be reached just now
"""


class StorageError(Exception):
    """The root of what a store raises."""


class BlobNotFound(StorageError):
    """No content has this digest here."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"no blob {digest}")
        self.digest = digest


class DigestMismatch(StorageError):
    """The bytes that arrived are not those that the digest names; nothing was kept."""

    def __init__(self, expected: str, actual: str, size: int) -> None:
        super().__init__(f"expected {expected}, got {actual} ({size} bytes)")
        self.expected = expected
        self.actual = actual
        self.size = size


class StorageFull(StorageError):
    """No room left on the device; nothing was kept."""


class StorageUnavailable(StorageError):
    """The store cannot be reached just now; trying again later may pass."""


class LeaseLost(StorageError):
    """Somebody else holds the lease by now: what was done under it may not be published."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the lease {name} is no longer held")
        self.name = name
