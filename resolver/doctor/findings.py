"""What was found, as people and programs read it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["well", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `check` is the part, `about` which one of several; `told` says what was seen.

    `well`: as it should be · `note`: works, and could do better · `wrong`: fails, or will. The last two have a
    `way_out`.
    """

    check: str
    about: str
    state: State
    told: str
    way_out: str = ""


def well(check: str, about: str, told: str) -> Finding:
    """As it should be."""
    return Finding(check, about, "well", told)


def note(check: str, about: str, told: str, way_out: str) -> Finding:
    """It works, and could do better."""
    return Finding(check, about, "note", told, way_out)


def wrong(check: str, about: str, told: str, way_out: str) -> Finding:
    """It fails, or will."""
    return Finding(check, about, "wrong", told, way_out)
