"""Column types that mean the same on every database."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, Dialect, Integer, String
from sqlalchemy.types import TypeDecorator

from storage.content import Digest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# SQLite numbers rows by itself only where the key is spelled INTEGER.
ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")


def to_microseconds(time: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly. Raises ValueError for a naive time."""
    if time.tzinfo is None:
        raise ValueError("a naive time cannot be stored")
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The inverse of `to_microseconds`. Raises OverflowError where no such time can be."""
    return _EPOCH + count * _MICROSECOND


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC, kept as integer microseconds, so that it orders and compares exactly everywhere."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To microseconds."""
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From microseconds."""
        return None if value is None else from_microseconds(value)


class DigestText(TypeDecorator[Digest]):
    """A digest, kept as its text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> str | None:
        """To a plain string, which is what drivers know."""
        return None if value is None else str.__str__(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Digest | None:
        """From text."""
        return None if value is None else Digest(value)
