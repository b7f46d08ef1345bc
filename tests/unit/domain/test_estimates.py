"""What a Pod would save: more for a larger set, longer at a lower limit, never less than nothing."""

import pytest

from resolver.domain.estimates import saved


def test_small_and_large_sets_are_as_they_were_measured() -> None:
    small, large = saved(2_000_000, None), saved(616_000_000, None)
    assert 0.5 < small.cpu_seconds < 1.5
    assert 20 < large.cpu_seconds < 30
    assert large.seconds == large.cpu_seconds


@pytest.mark.parametrize(("limit", "times"), [(0.15, 6.7), (0.5, 2), (4.0, 1), (None, 1)])
def test_time_is_longer_where_less_cpu_may_be_used(limit: float | None, times: float) -> None:
    found = saved(150_000_000, limit)
    assert found.seconds == pytest.approx(times * found.cpu_seconds, rel=0.02)


def test_an_empty_set_saves_what_starting_pip_costs() -> None:
    assert 0 < saved(0, None).cpu_seconds < 1
