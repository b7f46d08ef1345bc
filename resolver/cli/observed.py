"""`observed`: what the service's log says of Pods that it observed, by workload; how a team starts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from resolver.cli.command import Command
from resolver.cli.output import plain, print_json
from resolver.cli.tables import short, show
from resolver.client.errors import BadUsage

_STDIN = Path("-")
_ESTIMATE = "CPU-seconds are estimates, from the size of each bundle: half or twice as much is as likely."


@dataclass(slots=True)
class _Seen:
    """A workload's Pods. `locks` are those that they would have got, in the order in which they came up."""

    namespace: str
    workload: str
    pods: int = 0
    packages: int = 0
    locks: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    cpu_seconds_saved_estimate: float = 0.0

    def add(self, event: dict[str, Any]) -> None:
        self.pods += 1
        if lock := event.get("lock"):
            self.packages = event["packages"]
            self.cpu_seconds_saved_estimate = round(
                self.cpu_seconds_saved_estimate + event["estimate"]["cpu_seconds_saved"], 1
            )
            _add_new(self.locks, [lock])
        _add_new(self.drift, event.get("drift", []))
        _add_new(self.causes, [event["cause"]] if event.get("cause") else [])


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read the service's log (JSON, one event a line), and tell for each workload of the namespaces that are "
        "labelled lockstep.dev/mode=observe what its Pods would be locked to, whether replicas of one revision would "
        "have differed, and what CPU they would have saved: kubectl logs … | lockstep observed"
    )
    add = parser.add_argument
    add("file", metavar="FILE", nargs="?", type=Path, default=_STDIN, help="the log (default: standard input)")
    add("--namespace", metavar="N", help="of this namespace alone")
    add("--json", action="store_true", help="print JSON instead")


def _observed(options: argparse.Namespace) -> int:
    try:
        opened = (
            nullcontext(sys.stdin)
            if options.file == _STDIN
            else options.file.open(encoding="utf-8", errors="backslashreplace")
        )
        with opened as lines:
            seen = _read(lines, options.namespace)
    except OSError as error:
        raise BadUsage(f"cannot read {options.file}: {error.strerror}") from error
    workloads = sorted(seen, key=lambda each: (each.namespace, each.workload))
    if options.json:
        print_json({"workloads": [asdict(each) for each in workloads]})
    else:
        show(_table(workloads))
    return 0


def _read(lines: Iterable[str], namespace: str | None) -> list[_Seen]:
    found: dict[tuple[str, str], _Seen] = {}
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # other things write there too
        if not isinstance(event, dict) or event.get("event") != "observed":
            continue
        whose = str(event.get("namespace") or ""), str(event.get("workload") or "")
        if namespace in (None, whose[0]):
            found.setdefault(whose, _Seen(*whose)).add(event)
    return [*found.values()]


def _add_new(known: list[str], others: Iterable[str]) -> None:
    known += [each for each in others if each not in known]


def _table(workloads: list[_Seen]) -> RenderableType:
    table = Table(box=SIMPLE_HEAD)
    for name in ("workload", ">Pods", ">packages", "would be locked to", "replicas differ in", ">CPU-seconds saved"):
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for each in workloads:
        locks = ", ".join(short(lock) for lock in each.locks) or "; ".join(each.causes)
        table.add_row(
            *(
                Text(plain(text))
                for text in (
                    f"{each.namespace}/{each.workload}",
                    str(each.pods),
                    str(each.packages or ""),
                    locks,
                    ", ".join(each.drift),
                    f"{each.cpu_seconds_saved_estimate:.1f}",
                )
            )
        )
    return Group(table, Text(_ESTIMATE))


OBSERVED = Command(_arguments, _observed)
