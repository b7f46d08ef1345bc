"""`refresh` and `hold`: what an operator decides for a workload. Pins that are there stay as they are."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from resolver.cli import remote
from resolver.cli.command import Command
from resolver.cli.inspection import add_json
from resolver.cli.output import plain, print_json


def _refresh_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--namespace", metavar="N", required=True, help="the workload's namespace")
    parser.add_argument("--workload", metavar="W", required=True, help="the workload")
    add_json(parser)
    remote.add_arguments(parser)


def _hold_arguments(parser: argparse.ArgumentParser) -> None:
    _refresh_arguments(parser)
    parser.add_argument(
        "--lock",
        metavar="L",
        required=True,
        help="the lock that new revisions take: its digest, or the beginning of its hexadecimal part",
    )


def _refresh(options: argparse.Namespace) -> int:
    path = _pins(options)
    with remote.connect(options) as service:
        body = service.send("DELETE", path).json()
    return _print(options, body, "the next revision resolves anew")


def _hold(options: argparse.Namespace) -> int:
    path = f"{_pins(options)}/hold"
    with remote.connect(options) as service:
        lock = service.digest(options.lock)
        body = service.send("PUT", path, body={"lock": lock}).json()
    return _print(options, body, f"new revisions take lock {lock}, until the next refresh")


def _pins(options: argparse.Namespace) -> str:
    return f"/v1/pins/{remote.segment(options.namespace)}/{remote.segment(options.workload)}"


def _print(options: argparse.Namespace, body: dict[str, Any], decided: str) -> int:
    if options.json:
        print_json(body)
    else:
        sys.stdout.write(plain(f"{options.namespace}/{options.workload}: {decided}") + "\n")
    return 0


COMMANDS = {
    "refresh": Command(_refresh_arguments, _refresh),
    "hold": Command(_hold_arguments, _hold),
}
