import base64
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from storage.content import Digest
from storage.metadata.columns import from_microseconds, to_microseconds
from storage.metadata.cursors import read_cursor, write_cursor
from storage.records import InvalidCursor

times = st.datetimes(timezones=st.just(UTC)) | st.datetimes(timezones=st.timezones())


@given(times)
def test_times_are_kept_to_the_microsecond(time: datetime) -> None:
    assume(datetime.min.replace(tzinfo=UTC) < time < datetime.max.replace(tzinfo=UTC))
    kept = from_microseconds(to_microseconds(time))
    assert kept == time.astimezone(UTC)
    assert kept.tzinfo is UTC


@given(times, times)
def test_times_keep_their_order(one: datetime, two: datetime) -> None:
    assert (to_microseconds(one) < to_microseconds(two)) == (one.astimezone(UTC) < two.astimezone(UTC))


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        to_microseconds(datetime(2026, 11, 20))  # noqa: DTZ001 - naive is what is tested


@given(st.datetimes(timezones=st.just(UTC)), st.binary())
def test_a_cursor_comes_back(created: datetime, content: bytes) -> None:
    digest = Digest.of(content)
    assert read_cursor(write_cursor(created, digest), Digest) == (created, digest)


@given(st.text())
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidCursor):
        read_cursor(text, Digest)


@given(st.datetimes(timezones=st.just(UTC)), st.text(max_size=100))
def test_a_cursor_of_another_list_is_none_here(created: datetime, identity: str) -> None:
    with pytest.raises(InvalidCursor):
        read_cursor(write_cursor(created, identity), Digest)


@given(st.integers(min_value=10**18) | st.integers(max_value=-(10**18)))
def test_a_time_that_cannot_be_is_no_cursor(count: int) -> None:
    text = f"{count} {Digest.of(b'')}".encode()
    with pytest.raises(InvalidCursor):
        read_cursor(base64.urlsafe_b64encode(text).decode().rstrip("="), Digest)
