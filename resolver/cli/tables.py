"""The service's answers as tables and trees for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

from resolver.cli.output import plain
from resolver.client.console import size

_WIDE = 100_000  # characters: where nobody looks at it, a row is a line
_UNBROKEN = frozenset({"lock", "created (UTC)", "packages", "package", "version", "size", "uploaded"})


def show(renderable: RenderableType) -> None:
    """Print to standard output: as wide as the terminal, or each row on one line where there is none."""
    width = None if sys.stdout.isatty() else _WIDE
    Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False).print(renderable)


def short(digest: str) -> str:
    """As much of a digest as tells locks apart; it names the lock on the command line."""
    return digest.removeprefix("sha256:")[:12]


def locks(items: list[dict[str, Any]]) -> RenderableType:
    """Locks in the order of the list."""
    table = _table("lock", "created (UTC)", ">packages", "targets", "pins", "requirements")
    for item in items:
        _row(
            table,
            short(item["digest"]),
            _moment(item["created"]),
            item["package_count"],
            _several(item["targets"]),
            _several(_holders(item)),
            _several(item["requirements"]),
        )
    return table


def lock(body: dict[str, Any]) -> RenderableType:
    """One lock: its facts, then its packages by name."""
    facts = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    indexes = _several(package["index"] for package in body["packages"] if package["index"])
    for name, value in (
        ("lock", body["digest"]),
        ("created", f"{_moment(body['created'])} UTC"),
        ("targets", _several(body["targets"])),
        ("requirements", _several(body["requirements"])),
        ("constraints", _several(body["constraints"])),
        ("pins", _several(_holders(body))),
        ("indexes", indexes),
    ):
        if value:
            _row(facts, name, value)
    of_several = ", " in indexes
    table = _table("package", "version", ">size", "uploaded", "licence", "needs", *(["index"] if of_several else []))
    for package in sorted(body["packages"], key=lambda package: str(package["name"])):
        extras = f"[{','.join(package['extras'])}]" if package["extras"] else ""
        marker = f" ; {package['marker']}" if package["marker"] else ""
        wheels = package["wheels"]
        _row(
            table,
            f"{package['name']}{extras}{marker}",
            package["version"],
            _several(size(wheel["size"]) for wheel in wheels if wheel["size"] is not None),
            _several(wheel["upload_time"][:10] for wheel in wheels if wheel["upload_time"]),
            package["licence"],
            _several(package["dependencies"]),
            *([package["index"]] if of_several else []),
        )
    return Group(facts, "", table, *_builds(body["packages"]))


def _builds(packages: list[dict[str, Any]]) -> list[RenderableType]:
    """What was built from source: out of what, and what the build printed."""
    built = [(package, build) for package in packages for build in package.get("builds", ())]
    if not built:
        return []
    table = _table("built from source", ">size", "for", "of", "with", "by", "reproducible")
    logs: list[RenderableType] = []
    for package, build in built:
        same = {True: "yes", False: "no", None: ""}[build["reproducible"]]
        with_what = short(build["requirements"]) if build["requirements"] else ""
        _row(
            table,
            build["wheel"],
            size(build["size"]),
            build["target"],
            build["sdist"],
            with_what,
            build["builder"],
            same,
        )
        if build["log"]:
            logs += ["", _text(f"{package['name']} {package['version']}, what its build printed last:")]
            logs += [_text(f"  {line}") for line in build["log"].splitlines()]
    return ["", table, *logs]


def diff(body: dict[str, Any]) -> RenderableType:
    """What changes, by name: `+` added, `-` removed, `~` another version."""
    rows = [
        *((each["name"], "+", "", each["version"]) for each in body["added"]),
        *((each["name"], "-", each["version"], "") for each in body["removed"]),
        *((each["name"], "~", each["from"], each["to"]) for each in body["changed"]),
    ]
    if not rows:
        return Text("the same versions of the same packages")
    table = _table("", "package", short(body["a"]), short(body["b"]))
    for name, sign, old, new in sorted(rows):
        _row(table, sign, name, old, new)
    return table


def why(body: dict[str, Any]) -> RenderableType:
    """The ways to a package, from the lock's requirements down; ways that begin alike share their beginning."""
    root = Tree(_text(f"{body['package']} {body['version']} in lock {short(body['lock'])}"))
    branches: dict[tuple[str, ...], Tree] = {}
    for path in body["paths"]:
        node = root
        way: tuple[str, ...] = ()
        for step in path:
            way = (*way, step["requirement"])
            if way not in branches:
                branches[way] = node.add(_text(step["requirement"]))
            node = branches[way]
    if not body["paths"]:
        root.add(Text("no requirement leads to it"))
    if body["truncated"]:
        root.add(Text("(there are more ways than these)"))
    return root


def pins(items: list[dict[str, Any]]) -> RenderableType:
    """Pins by namespace and workload, the newest of each first."""
    table = _table("namespace", "workload", "revision", "lock", "created (UTC)", "notes")
    newest_first = sorted(items, key=lambda item: _time(item["created"]), reverse=True)
    for item in sorted(newest_first, key=lambda item: (item["namespace"], item["workload"])):
        notes = ["stale"] if item["stale"] else []
        notes += [f"{target}: {short(digest)}" for target, digest in sorted(item["extensions"].items())]
        _row(
            table,
            item["namespace"],
            item["workload"],
            item["revision"],
            short(item["lock"]),
            _moment(item["created"]),
            _several(notes),
        )
    return table


def warmed(items: list[dict[str, Any]]) -> RenderableType:
    """What was warmed, in the order of the list."""
    table = _table("entry", "python", "platform", "outcome", "lock", ">seconds", "because")
    for item in items:
        target, problem = item["target"], item["problem"]
        _row(
            table,
            item["name"],
            target["python"],
            target["platform"],
            item["outcome"],
            short(item["lock"]) if item["lock"] else "",
            f"{item['seconds']:.2f}",
            problem["title"] if problem else "",
        )
    return table


def _table(*headings: str) -> Table:
    """`>` before a heading: numbers, which stand to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        name = heading.removeprefix(">")
        justify: JustifyMethod = "left" if name == heading else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name in _UNBROKEN)
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(_text("" if cell is None else str(cell)) for cell in cells))


def _text(text: str) -> Text:
    return Text(plain(text))


def _holders(lock: dict[str, Any]) -> list[str]:
    shown = [f"{pin['namespace']}/{pin['workload']}@{pin['revision']}" for pin in lock["pins"]]
    more = lock["pin_count"] - len(shown)
    return [*shown, f"{more} more"] if more > 0 else shown


def _several(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _moment(text: str) -> str:
    return _time(text).strftime("%Y-%m-%d %H:%M")
