"""How far a piece of work is, for whoever asks meanwhile."""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["waiting", "locking", "fetching", "building", "warming", "done"]


@dataclass(slots=True)
class Progress:
    """The stage, and how many of the packages (warming: requests) have been through it."""

    stage: Stage = "waiting"
    done: int = 0
    total: int = 0

    def enter(self, stage: Stage, total: int = 0) -> None:
        """Begin a stage."""
        self.stage, self.done, self.total = stage, 0, total

    def step(self) -> None:
        """One more of this stage's `total` is done."""
        self.done += 1

    def to_json(self) -> dict[str, object]:
        """The form that an operation shows."""
        return {"stage": self.stage, "done": self.done, "total": self.total}
