"""`warm`: resolve and build all that a file names, before anybody asks for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from resolver.cli import remote, tables, warm_file
from resolver.cli.command import Command
from resolver.cli.inspection import add_json
from resolver.cli.output import print_json, say, tell
from resolver.client.errors import FetchError, Refused, Unavailable
from resolver.client.problems import problem
from resolver.client.retries import Passing

Seen = Callable[[dict[str, Any]], None]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Resolve and build all that a file names, before anybody asks for it. One entry that fails stops no other. "
        "Exit code 0: all of it is hot; 65: some of it never will be, as it is; 69: some of it is not, trying again "
        "may help."
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the warm file (YAML)")
    add_json(parser)
    remote.add_arguments(parser, timeout=3600)


def _warm(options: argparse.Namespace) -> int:
    body = warm_file.read(options.file)
    with remote.connect(options) as service, _showing() as seen:
        answer = service.follow(service.send("POST", "/v1/warm", body=body), seen).json()
    with remote.as_agreed():
        rendered = tables.warmed(answer["entries"])
        failures = [_failure(entry) for entry in answer["entries"] if entry["problem"] is not None]
        hot = answer["hot"] is True and not failures
    if options.json:
        print_json(answer)
    else:
        tables.show(rendered)
    for failure in failures:
        tell(failure)
    if hot:
        return 0
    refused = any(failure.exit_code == Refused.exit_code for failure in failures)
    return (Refused if refused else Unavailable).exit_code


def _failure(entry: dict[str, Any]) -> FetchError:
    asked = f"{entry['name']}, Python {entry['target']['python']}, {entry['target']['platform']}"
    found = problem(entry["problem"], int(entry["problem"]["status"]), asked)
    error = found.final if isinstance(found, Passing) else found
    return type(error)(f"{asked}: {error}", error.hints)


@contextmanager
def _showing() -> Iterator[Seen]:
    """Shows progress on standard error: a bar on a terminal, elsewhere a line whenever there is something to say."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("warming", total=None)

        def draw(state: dict[str, Any]) -> None:
            with remote.as_agreed():
                done, total = _done(state)
            bar.update(task, completed=done, total=total or None)

        yield draw


def _lines() -> Seen:
    said = -1

    def write(state: dict[str, Any]) -> None:
        nonlocal said
        with remote.as_agreed():
            done, total = _done(state)
        if total and done != said:
            said = done
            say(f"warming: {done} of {total}")

    return write


def _done(state: dict[str, Any]) -> tuple[int, int]:
    return int(state["progress"]["done"]), int(state["progress"]["total"])


WARM = Command(_arguments, _warm)
