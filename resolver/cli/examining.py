"""`doctor`: looks at what operators get wrong, says what it finds, and the way out."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from resolver.cli.command import Command
from resolver.cli.output import plain, print_json
from resolver.cli.serving import add_settings, read_settings
from resolver.cli.tables import show

if TYPE_CHECKING:
    from resolver.doctor.findings import Finding
    from resolver.settings import Settings

_SOMETHING_WRONG = 1
_STYLES = {"well": "green", "note": "yellow", "wrong": "bold red"}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look at indexes, database, blob store, interpreters, clock, tokens and their keys, builders, webhook "
        "certificate, registry, scratch space and memory, with the settings of `serve`, from where this runs: in the "
        "service's own Pod it sees what the service sees. Exit code 1: something is wrong; a note alone is 0."
    )
    add = parser.add_argument
    add("--project", metavar="NAME", default="pip", help="one that the indexes have (default: pip)")
    add("--ca-bundle", metavar="FILE", type=Path, help="what API servers trust: caBundle of the webhook, decoded")
    add("--json", action="store_true", help="print JSON instead")
    add_settings(parser)


def _doctor(options: argparse.Namespace) -> int:
    settings = read_settings(options)
    examine: Callable[[Settings, str, Path | None], list[Finding]] = options.doctor
    findings = examine(settings, options.project, options.ca_bundle)
    counted = Counter(finding.state for finding in findings)
    if options.json:
        print_json({"well": not counted["wrong"], "findings": [asdict(finding) for finding in findings]})
    else:
        show(_table(findings))
        show(Text(f"{counted['well']} well, {counted['note']} to note, {counted['wrong']} wrong"))
    return _SOMETHING_WRONG if counted["wrong"] else 0


def _table(findings: list[Finding]) -> RenderableType:
    table = Table(
        Column("", no_wrap=True),
        Column("check", no_wrap=True),
        Column("found", overflow="fold"),
        Column("way out", overflow="fold"),
        box=SIMPLE_HEAD,
    )
    for finding in findings:
        about = Text(plain(f"{finding.check} {finding.about}"))
        state = Text(finding.state, style=_STYLES[finding.state])
        table.add_row(state, about, Text(plain(finding.told)), Text(plain(finding.way_out)))
    return table


DOCTOR = Command(_arguments, _doctor)
