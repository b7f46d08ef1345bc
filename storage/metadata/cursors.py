"""Cursors: where a list goes on, opaque to who carries them. Base64 of the last item's time and identity."""

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, tuple_

from storage.metadata.columns import from_microseconds, to_microseconds
from storage.records import InvalidCursor

Identity = TypeVar("Identity", str, int)

_LONGEST = 256


def write_cursor(created: datetime, identity: str | int) -> str:
    """The cursor behind this item."""
    text = f"{to_microseconds(created)} {identity}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, identify: Callable[[str], Identity]) -> tuple[datetime, Identity]:
    """Creation time and identity of the item that the list goes on behind; `identify` raises ValueError for what
    identifies none.

    Raises:
        InvalidCursor: `write_cursor` does not write this.
    """
    try:
        if len(cursor) > _LONGEST:
            raise ValueError("too long")
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        count, _, identity = text.partition(" ")
        position = from_microseconds(int(count)), identify(identity)
        # Decoding is lenient, writing is not: only what comes out the same was ours.
        if write_cursor(*position) != cursor:
            raise ValueError("written otherwise")
    except (ValueError, OverflowError) as error:
        raise InvalidCursor("not a cursor of this list") from error
    return position


def behind(
    created: Column[datetime], identity: Column[Any], position: tuple[datetime, str | int]
) -> ColumnElement[bool]:
    """The condition of a list, newest first, that goes on behind this position."""
    return tuple_(created, identity) < tuple_(*position, types=[created.type, identity.type])
