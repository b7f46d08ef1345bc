"""A database's failures in the store's words.

Every way for a database to be away ends in StorageUnavailable: refused, reset, not answering in time, starting up
(57P03), shutting down (57P01), out of connections, or without the tables. SQLSTATE codes are those of PostgreSQL,
appendix A; SQLite has names of its own.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import exc

from storage.errors import StorageError, StorageFull, StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 4
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "53100"}  # full; no room for the index of the log; disk_full
_COLLIDED = {"40001", "40P01"}  # serialization_failure, deadlock_detected
_LACKS_OURS = {"42P01", "3F000", "42501"}  # undefined_table, invalid_schema_name, insufficient_privilege
_FAULTS_OF_OURS = (exc.ProgrammingError, exc.DataError, exc.NotSupportedError)


class Collision(StorageUnavailable):
    """The database undid this transaction in favour of another's; nothing of it was kept."""


def retried(transaction: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A method that is one transaction, made to try again where it collides with another, a few times.

    Raises: what the method does; Collision where it collided every time.
    """

    @wraps(transaction)
    async def trying(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(1, _ATTEMPTS):
            try:
                return await transaction(*args, **kwargs)
            except Collision:
                await asyncio.sleep(0.02 * 2**attempt)
        return await transaction(*args, **kwargs)

    return trying


@contextmanager
def failures() -> Iterator[None]:
    """Turns the database's failures into StorageFull, StorageUnavailable, or, where a record names another that is
    not here, StorageError. Statements and parameters stay out of the message."""
    try:
        yield
    except exc.IntegrityError as error:
        raise StorageError("a record refers to another that is not here") from error
    except exc.DBAPIError as error:
        code = _code(error.orig)
        if isinstance(error, _FAULTS_OF_OURS) and code not in _LACKS_OURS:
            raise
        raise _of_code(code) from error
    except (exc.TimeoutError, TimeoutError) as error:
        raise StorageUnavailable("the database did not answer in time") from error
    except sqlite3.Error as error:
        raise _of_code(_code(error)) from error


def _code(error: BaseException | None) -> str:
    return getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or type(error).__name__


def _of_code(code: str) -> StorageError:
    if code in _FULL:
        return StorageFull("no room left for the database")
    if code in _COLLIDED:
        return Collision(f"the transaction collided with another: {code}")
    return StorageUnavailable(f"the database does not answer: {code}")
