"""Lines for a log, a bar for a person."""

import io

import pytest

from resolver.client import console
from resolver.client.console import Console, Progress, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (123_456_789, "123.5 MB"),
        (5_600_000_000, "5.6 GB"),
    ],
)
def test_sizes(count: int, told: str) -> None:
    assert size(count) == told


def test_a_log_has_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_LINE_EVERY", 0.0)
    stream = io.StringIO()
    progress = Progress(Console(stream), 2_000_000)
    progress.add(500_000)
    progress.add(500_000)
    progress.add(-1_000_000)
    lines = stream.getvalue().splitlines()
    assert [line.split(" s  ")[1] for line in lines] == ["500.0 kB of 2.0 MB", "1.0 MB of 2.0 MB", "0 B of 2.0 MB"]
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_has_a_bar_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_BAR_EVERY", 0.0)
    stream = Terminal()
    told = Console(stream)
    progress = Progress(told, 1000)
    progress.add(500)
    progress.add(700)
    told.say("done")
    assert stream.getvalue().count("\n") == 1
    assert f"[{'#' * 15}{' ' * 15}] 500 B of 1.0 kB\r" in stream.getvalue()
    assert f"[{'#' * 30}] 1.2 kB of 1.0 kB\r" in stream.getvalue()


def test_progress_is_said_now_and_then_only() -> None:
    stream = io.StringIO()
    progress = Progress(Console(stream), 10)
    for _ in range(10):
        progress.add(1)
    assert stream.getvalue() == ""
    assert progress.done == 10
