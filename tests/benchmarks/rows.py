"""What a benchmark says: the rows of contract.md, "Benchmarks"."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def rows(bench: str, case: str, metric: str, sides: Mapping[str, Sequence[float]]) -> list[Row]:
    """A row for each side that was measured in this case, with its ratio to each other side."""
    measured = {side: values for side, values in sides.items() if values}
    medians = {side: statistics.median(values) for side, values in measured.items()}
    return [
        {
            "bench": bench,
            "case": case,
            "side": side,
            "metric": metric,
            "median": round(medians[side], 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
            "runs": len(values),
            "ratio_to": {
                other: round(medians[side] / medians[other], 3)
                for other in measured
                if other != side and medians[other] > 0
            },
        }
        for side, values in measured.items()
    ]


def absent(bench: str, case: str, part: str, why: str) -> Row:
    """The row of what cannot be measured here: no figures, and in the place of a ratio what is missing, and why."""
    nothing: Row = {"median": None, "min": None, "max": None, "runs": 0}
    return {"bench": bench, "case": case, "side": "lockstep", "metric": "", **nothing, "ratio_to": {part: why}}
