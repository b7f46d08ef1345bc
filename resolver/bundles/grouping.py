"""Which layers of a large bundle are merged into one.

overlayfs, with which runtimes mount an image, takes about 127 layers. So above `MOST` layers the small ones share: the
largest stand alone, since they are what is worth sharing between bundles, and the small ones that stand between two of
them in the order of names are one layer. The order, and so which of two layers wins a path, is the same as without.

It depends on the layers of the bundle alone: not on what was built before, on this machine or on another.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, TypeVar

from resolver.bundles.manifest import layer_order

MOST = 100
_ALONE = (MOST - 1) // 2  # so many stand alone; before, between and behind them there is room for one more than that


class Sized(Protocol):
    """A layer, as far as grouping cares."""

    @property
    def tar_size(self) -> int:
        """Bytes of the plain tar."""
        ...


S = TypeVar("S", bound=Sized)


def grouped(layers: Sequence[tuple[str, S]]) -> list[list[tuple[str, S]]]:
    """The layers, each with its name, in the order of their names; those of an inner list are to be one. `MOST` inner
    lists at the most."""
    ordered = sorted(layers, key=lambda named: layer_order(named[0]))
    if len(ordered) <= MOST:
        return [[named] for named in ordered]
    by_size = sorted(ordered, key=lambda named: (-named[1].tar_size, layer_order(named[0])))
    alone = {name for name, _ in by_size[:_ALONE]}
    groups: list[list[tuple[str, S]]] = []
    for stands_alone, run in groupby(ordered, key=lambda named: named[0] in alone):
        members = list(run)
        groups += [[named] for named in members] if stands_alone else [members]
    return groups
