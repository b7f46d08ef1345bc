"""What goes to a terminal or a program: answers to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resolver.client.errors import FetchError


def plain(text: str) -> str:
    """One line without what a terminal would obey instead of showing: strangers write licences and versions."""
    return "".join(character if character.isprintable() else " " for character in text)


def say(text: str) -> None:
    """A line for a person."""
    sys.stderr.write(f"lockstep: {plain(text)}\n")


def tell(error: FetchError) -> None:
    """Why a command failed, and what may help."""
    first, *more = str(error).splitlines() or [type(error).__name__]
    say(first)
    for line in (*more, *error.hints):
        sys.stderr.write(f"  {plain(line)}\n")


def print_json(body: dict[str, Any]) -> None:
    """An answer for a program."""
    sys.stdout.write(json.dumps(body, indent=2) + "\n")
