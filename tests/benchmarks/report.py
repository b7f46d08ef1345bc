"""The rows for people: tables, and the chart of the README."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.rows import Row

_WIDTH = 130
_SHOWN = {
    "pip": "#9aa0a6",
    "uv": "#9aa0a6",
    "uv, byte-code": "#9aa0a6",
    "uv, warm cache elsewhere": "#9aa0a6",
    "lockstep": "#1a73e8",
    "lockstep, mounted": "#1a73e8",
}
"""The sides in the chart, and their colours."""
_PEERS = ("pip", "uv")
console = Console(highlight=False, width=None if Console().is_terminal else _WIDTH)


def show(found: Sequence[Row], to: Console) -> None:
    """A table for each benchmark."""
    for bench in dict.fromkeys(row["bench"] for row in found):
        mine = [row for row in found if row["bench"] == bench]
        others = list(dict.fromkeys(other for row in mine if row["median"] is not None for other in row["ratio_to"]))
        compared = [side for side in _PEERS if side in others] or [side for side in others if side != "lockstep"][:2]
        table = Table(title=bench, title_justify="left", title_style="bold")
        table.add_column("case and metric", no_wrap=True)
        table.add_column("side", no_wrap=True)
        for heading in ("median", "min", "max", "runs", *(f"× {side}" for side in compared)):
            table.add_column(heading, justify="right", no_wrap=True)
        last = None
        for row in mine:
            group = f"{row['case']}: {row['metric']}"
            if last is not None and group != last:
                table.add_section()
            table.add_row("" if group == last else group, row["side"], *_figures(row, compared))
            last = group
        to.print(table)


def _figures(row: Row, compared: Sequence[str]) -> list[str]:
    if row["median"] is None:
        return ["; ".join(f"{part}: {why}" for part, why in row["ratio_to"].items())]
    ratios = [row["ratio_to"].get(side) for side in compared]
    figures = [f"{row[name]:.4g}" for name in ("median", "min", "max")]
    return [*figures, str(row["runs"]), *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)]


def chart(found: Sequence[Row], path: Path) -> None:
    """CPU seconds of a Pod from nothing to its imports done, a group of bars for each set, as a PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (`make bench` does it).
    """
    from matplotlib.figure import Figure

    bars = [row for row in found if row["bench"] == "pod" and row["metric"] == "CPU s" and row["side"] in _SHOWN]
    # Where it was measured in several ways, the first one speaks: no limits, memory before disk.
    place = next(row["case"].partition(", ")[2] for row in bars)
    bars = [row for row in bars if row["case"].partition(", ")[2] == place]
    cases = list(dict.fromkeys(row["case"] for row in bars))
    sides = [side for side in _SHOWN if any(row["side"] == side for row in bars)]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        medians = {row["side"]: row["median"] for row in bars if row["case"] == case}
        drawn = axes.barh(sides, [medians.get(side, 0.0) for side in sides], color=[_SHOWN[side] for side in sides])
        axes.bar_label(drawn, fmt="%.2f", padding=3)
        axes.set_title(f"{case.partition(',')[0]}.txt")
        axes.margins(x=0.2)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.label_outer()
    figure.supxlabel(f"CPU seconds of a Pod, from nothing to all imports done ({place})")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
