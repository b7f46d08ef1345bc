"""`gc`, `fsck`, `migrate`: on the stores themselves, with the settings of `serve`, so that they need no service."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from rich.table import Column, Table
from rich.text import Text

from resolver.cli.command import Command
from resolver.cli.output import print_json
from resolver.cli.serving import add_settings, read_settings
from resolver.cli.tables import show
from resolver.client.console import size
from resolver.client.errors import BadUsage, Unavailable
from resolver.domain.redaction import redact
from storage.errors import StorageError

if TYPE_CHECKING:
    from resolver.service.fsck import Checked
    from resolver.service.retain import Collected
    from resolver.settings import Settings

T = TypeVar("T")

_DAMAGE_REMAINS = 1


def _gc_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Remove what nothing needs, from the database and the blob store that the settings name; safe at any time, "
        "and on several machines at once. What is found loose is marked now, and removed by a run after the grace."
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing; say what would be removed")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    add_settings(parser)


def _fsck_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check every blob against its digest, and every record against its blobs, in the database and the blob store "
        "that the settings name. Exit code 1: damage remains."
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="put damaged blobs aside and drop what needs them, so that its next use fetches or builds it again",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    add_settings(parser)


def _migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Bring the tables of the database that the settings name up to date. `serve` does so by itself too; this is "
        "for where only an administrator may change tables. Several at once take turns."
    )
    add_settings(parser)


def _migrate(options: argparse.Namespace) -> int:
    bring_up_to_date: Callable[[Settings], None] = options.migrate
    settings = read_settings(options)
    _on_the_stores(lambda: bring_up_to_date(settings))
    return 0


def _gc(options: argparse.Namespace) -> int:
    settings = read_settings(options)
    collect: Callable[[Settings, bool], Collected] = options.gc
    collected = _on_the_stores(lambda: collect(settings, options.dry_run))
    if options.json:
        print_json(asdict(collected))
    else:
        show(_facts(_collected(collected)))
    return 0


def _fsck(options: argparse.Namespace) -> int:
    settings = read_settings(options)
    check: Callable[[Settings, bool], Checked] = options.fsck
    checked = _on_the_stores(lambda: check(settings, options.repair))
    if options.json:
        print_json({**asdict(checked), "well": checked.well})
    else:
        show(_facts(_checked(checked)))
        for fault in checked.faults:
            sys.stdout.write(f"{fault.kind} {fault.digest}{' (mended)' if fault.mended else ''}\n")
    return 0 if checked.well else _DAMAGE_REMAINS


def _on_the_stores(work: Callable[[], T]) -> T:
    try:
        return work()
    except StorageError as failure:
        raise Unavailable(redact(str(failure))) from failure
    except ValueError as failure:  # a URL that is none
        raise BadUsage(redact(str(failure))) from failure


def _collected(collected: Collected) -> Mapping[str, str]:
    would = "would be " if collected.dry_run else ""
    facts = {
        f"{would}removed": f"{collected.removed} blobs, {size(collected.freed)}",
        f"{would}marked": f"{collected.marked} blobs, to be removed once the grace is over",
        f"{would}kept": f"{collected.kept} blobs, {size(collected.kept_bytes)}",
        f"{would}forgotten": f"{collected.forgotten} workloads",
    }
    if collected.over:
        facts["over the cap"] = f"{size(collected.over)}, all of it held"
    return facts


def _checked(checked: Checked) -> Mapping[str, str]:
    remaining = [fault for fault in checked.faults if not fault.mended]
    return {
        "blobs": f"{checked.blobs}, {size(checked.bytes)}",
        "references": f"{checked.references}",
        "garbage": f"{checked.garbage} blobs, {size(checked.garbage_bytes)}",
        "faults": f"{len(checked.faults)}, of which {len(remaining)} remain",
    }


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name), Text(value))
    return table


COMMANDS = {
    "gc": Command(_gc_arguments, _gc),
    "fsck": Command(_fsck_arguments, _fsck),
    "migrate": Command(_migrate_arguments, _migrate),
}
