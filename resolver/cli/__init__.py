"""The one program, `lockstep`: reads its arguments and hands over to a command."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from resolver.cli.command import Command
from resolver.cli.output import tell
from resolver.client.errors import BadUsage, FetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from typing import Any

_SUMMARIES = {
    "serve": "run the service",
    "fetch": "ask for a bundle and put it in place: what an init container runs",
    "builder": "build one source distribution for the service, and end: what a builder's Pod runs",
    "lock": "ask for a lock and write it as pylock.toml (PEP 751)",
    "locks": "list locks, newest first",
    "show": "show one lock",
    "diff": "show what changes from one lock to another",
    "why": "show why a package is in a lock",
    "pins": "list which workload runs on which lock",
    "refresh": "let the next revision of a workload take newer versions",
    "hold": "keep new revisions of a workload on one lock, until its next refresh",
    "warm": "resolve and build all that a file names, before anybody asks for it",
    "publish": "push a lock's or a workload's images to a registry",
    "inject": "let the Pods of a manifest start from their bundles, as the webhook would",
    "observed": "tell what observed Pods would be locked to, from the service's log",
    "doctor": "look for what is wrong with settings, stores, indexes and certificates",
    "gc": "remove what nothing needs",
    "fsck": "check every blob and every reference, and mend them",
    "migrate": "bring the database's tables up to date",
}
_EXIT_CODES = """exit codes (sysexits.h):
  0   done
  1   fsck: damage remains; doctor: something is wrong
  64  bad usage, or a setting that is none
  65  the requirements cannot be satisfied, or the service refuses what it was asked
  66  there is no such lock or package
  69  the service or an index is unavailable: try again
  73  a file cannot be written
  76  what arrived does not match its digest
  77  not allowed

`lockstep COMMAND --help` says more of each command.
"""
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BadUsage.exit_code, f"{self.prog}: {message}\n  {self.prog} --help says what there is\n")


def main(argv: Sequence[str] | None, **programs: Callable[..., Any]) -> int:
    """Run one command and return its exit code. `programs` are what works here instead of asking a service, by the name
    of the command: `serve` runs the service until it is told to stop, `gc` and `fsck` look after its stores, `doctor`
    after all that it needs.

    Raises:
        SystemExit: `--help` and `--version` (0), and arguments that are no command's (64).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["fetch"], ["builder"]):
        # Have their own arguments and messages, because they also run alone; load nothing else, because Pods wait.
        from resolver.client.__main__ import main as client

        return client(arguments, _settings)
    try:
        options = _parser(arguments[:1]).parse_args(arguments, argparse.Namespace(**programs))
        code: int = options.run(options)
        sys.stdout.flush()
    except FetchError as error:
        tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `lockstep locks | head`; Python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


def _settings() -> Container[str]:
    """The variables of the service, which stand in its image, and in whoever's shell runs both."""
    from resolver.settings import variables  # costs more than a fetch, and most Pods have none

    return variables()


def _parser(asked: list[str]) -> argparse.ArgumentParser:
    """Knows every command by name and summary, and only the one that is asked for in full: each loads much."""
    parser = _Parser(
        prog="lockstep",
        description="Locks a workload's Python requirements once, and gives every replica the same bundle of wheels.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in _SUMMARIES.items():
        described = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=described, allow_abbrev=False)
        if asked == [name]:
            found = _command(name)
            found.add_arguments(command)
            command.set_defaults(run=found.run)
    return parser


def _command(name: str) -> Command:
    match name:
        case "serve":
            from resolver.cli.serving import SERVE

            return SERVE
        case "lock":
            from resolver.cli.locking import LOCK

            return LOCK
        case "inject":
            from resolver.cli.injecting import INJECT

            return INJECT
        case "refresh" | "hold":
            from resolver.cli.workloads import COMMANDS as OPERATING

            return OPERATING[name]
        case "gc" | "fsck" | "migrate":
            from resolver.cli.keeping import COMMANDS as KEEPING

            return KEEPING[name]
        case "observed":
            from resolver.cli.observed import OBSERVED

            return OBSERVED
        case "doctor":
            from resolver.cli.examining import DOCTOR

            return DOCTOR
        case "publish":
            from resolver.cli.publish import PUBLISH

            return PUBLISH
        case "warm":
            from resolver.cli.warming import WARM

            return WARM
        case _:
            from resolver.cli.inspection import COMMANDS as INSPECTING

            return INSPECTING[name]


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # slow to load, and seldom asked for

        sys.stdout.write(f"lockstep {version('lockstep')}\n")
        parser.exit()
