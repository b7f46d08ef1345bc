"""`locks`, `show`, `diff`, `why`, `pins`: looking at what is locked and pinned."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from packaging.utils import InvalidName, canonicalize_name
from rich.console import RenderableType

from resolver.cli import remote, tables
from resolver.cli.command import Command
from resolver.cli.output import print_json, say
from resolver.client.errors import BadUsage

_LOCK = "its digest, or the beginning of its hexadecimal part"


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that asks for the service's own answer."""
    parser.add_argument("--json", action="store_true", help="print the service's JSON instead")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--namespace", metavar="N", help="only what the pins of this namespace hold")
    parser.add_argument("--limit", metavar="COUNT", type=_count, default=50, help="how many (default: 50)")
    add_json(parser)
    remote.add_arguments(parser)


def _locks_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--package", metavar="P", help="only locks with this package")
    _list_arguments(parser)


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lock", metavar="LOCK", help=_LOCK)
    add_json(parser)
    remote.add_arguments(parser)


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help=f"the old lock: {_LOCK}")
    parser.add_argument("b", metavar="B", help=f"the new lock: {_LOCK}")
    add_json(parser)
    remote.add_arguments(parser)


def _why_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lock", metavar="LOCK", help=_LOCK)
    parser.add_argument("package", metavar="PACKAGE", help="a name, in any spelling (PEP 503)")
    add_json(parser)
    remote.add_arguments(parser)


def _locks(options: argparse.Namespace) -> int:
    filters = {"package": options.package, "namespace": options.namespace}
    return _list(options, "/v1/locks", filters, tables.locks)


def _pins(options: argparse.Namespace) -> int:
    return _list(options, "/v1/pins", {"namespace": options.namespace}, tables.pins)


def _show(options: argparse.Namespace) -> int:
    with remote.connect(options) as service:
        body = service.get(f"/v1/locks/{service.digest(options.lock)}")
    return _print(options, body, tables.lock)


def _diff(options: argparse.Namespace) -> int:
    with remote.connect(options) as service:
        body = service.get(f"/v1/locks/{service.digest(options.a)}/diff/{service.digest(options.b)}")
    return _print(options, body, tables.diff)


def _why(options: argparse.Namespace) -> int:
    try:
        package = canonicalize_name(options.package, validate=True)
    except InvalidName:
        raise BadUsage(f"{options.package!r} is no name of a package") from None
    with remote.connect(options) as service:
        body = service.get(f"/v1/locks/{service.digest(options.lock)}/why/{package}")
    return _print(options, body, tables.why)


def _list(
    options: argparse.Namespace,
    path: str,
    filters: dict[str, str | None],
    render: Callable[[list[dict[str, Any]]], RenderableType],
) -> int:
    with remote.connect(options) as service:
        body = service.items(path, filters, options.limit)
    _print(options, body, lambda body: render(body["items"]))
    if body["cursor"] is not None and not options.json:
        say("there are more: --limit says how many to show")
    return 0


def _print(
    options: argparse.Namespace, body: dict[str, Any], render: Callable[[dict[str, Any]], RenderableType]
) -> int:
    if options.json:
        print_json(body)
    else:
        with remote.as_agreed():
            rendered = render(body)
        tables.show(rendered)
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("not a number from 1 on")
    return count


COMMANDS = {
    "locks": Command(_locks_arguments, _locks),
    "show": Command(_show_arguments, _show),
    "diff": Command(_diff_arguments, _diff),
    "why": Command(_why_arguments, _why),
    "pins": Command(_list_arguments, _pins),
}
