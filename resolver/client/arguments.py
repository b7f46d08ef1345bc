"""What the client was told: flags first, then variables named `LOCKSTEP_<FLAG>`.

Two variables hold the text itself instead of a file's name: LOCKSTEP_REQUIREMENTS (`-r`) and LOCKSTEP_CONSTRAINTS
(`-c`). Lists stand in one variable: LOCKSTEP_REQUIREMENT one a line, LOCKSTEP_INDEX between commas or blanks.
A variable that is empty counts as not set, LOCKSTEP_REQUIREMENTS apart: an empty set is a request.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys

from resolver.client.errors import BadUsage

TYPE_CHECKING = False  # `typing` itself costs a run several milliseconds of CPU
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

DEFAULT_TIMEOUT = 300.0

_PLAIN = ("server", "target", "namespace", "workload", "revision", "python", "platform", "token_file", "ca_file")
VARIABLES = frozenset(
    f"LOCKSTEP_{name.upper()}"
    for name in (*_PLAIN, "requirements", "requirement", "constraints", "index", "timeout", "on_failure")
)
# Kubernetes injects these for Services whose names begin with "lockstep": LOCKSTEP_SERVICE_HOST,
# LOCKSTEP_PORT_8080_TCP_ADDR, LOCKSTEP_DB_SERVICE_PORT_SQL… They are not meant for us.
_SERVICE_LINK = re.compile(
    r"LOCKSTEP_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


class Options:
    """A fetch as it was asked for. `requirements` is the text as it came: bytes that are not UTF-8 are kept as
    lone surrogates, so that it can be written back whole. Times are seconds."""

    def __init__(self, flags: argparse.Namespace, requirements: str, constraints: str | None) -> None:
        self.server: str = flags.server
        self.target: str = os.path.abspath(flags.target)
        self.requirements = requirements
        self.constraints = constraints
        self.indexes: list[str] = flags.index
        self.namespace: str | None = flags.namespace
        self.workload: str | None = flags.workload
        self.revision: str | None = flags.revision
        self.python: str | None = flags.python
        self.platform: str | None = flags.platform
        self.token_file: str | None = flags.token_file
        self.ca_file: str | None = flags.ca_file
        self.timeout: float = flags.timeout
        self.fallback: bool = flags.on_failure == "fallback"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadUsage(message, ("lockstep fetch --help lists the flags",))


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """The options of one run.

    Raises:
        BadUsage: naming the flag or variable. Its value is never shown.
    """
    flags = _parser().parse_args(arguments)
    _refuse_unknown(environ)
    for name in _PLAIN:
        if getattr(flags, name) is None:
            setattr(flags, name, environ.get(f"LOCKSTEP_{name.upper()}") or None)
    flags.index = flags.index or environ.get("LOCKSTEP_INDEX", "").replace(",", " ").split()
    flags.timeout = _seconds(flags.timeout or environ.get("LOCKSTEP_TIMEOUT") or DEFAULT_TIMEOUT)
    flags.on_failure = flags.on_failure or environ.get("LOCKSTEP_ON_FAILURE") or "fail"
    _check(flags)
    return Options(flags, _requirements(flags, environ), _constraints(flags, environ))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lockstep fetch",
        allow_abbrev=False,
        description="Ask the service for the bundle of these requirements, and put it in place.",
        epilog="Every flag can be set as LOCKSTEP_<FLAG>; LOCKSTEP_REQUIREMENTS and LOCKSTEP_CONSTRAINTS hold the text "
        "itself. Exit codes: 0 ready, 64 bad usage, 65 cannot be satisfied or not allowed, 69 unavailable, "
        "73 cannot write, 76 wrong bytes, 77 no access.",
    )
    add = parser.add_argument
    add("--server", metavar="URL", help="where the service is")
    add("--target", metavar="DIR", help="where site-packages and bin shall appear")
    add("-r", "--requirements", metavar="FILE", help="a requirements file (-: standard input)")
    add("--requirement", metavar="STR", action="append", help="one requirement; can be repeated")
    add("-c", "--constraints", metavar="FILE", help="a constraints file")
    add("--index", metavar="NAME", action="append", help="an index the operator configured; can be repeated")
    add("--namespace", metavar="N", help="the workload's namespace")
    add("--workload", metavar="W", help="the workload whose replicas shall agree")
    add("--revision", metavar="R", help="the workload's revision")
    add("--python", metavar="V", help="for this Python instead of the running one, with --platform")
    add("--platform", metavar="TAG", help="for this platform, such as musllinux_1_2_x86_64")
    add("--token-file", metavar="F", help="a file with the token to show")
    add("--ca-file", metavar="F", help="certificates to trust")
    add("--timeout", metavar="S", help=f"seconds for all of it (default: {DEFAULT_TIMEOUT:g})")
    add("--on-failure", metavar="fail|fallback", help="fallback: leave the requirements in DIR/requirements.txt")
    return parser


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    unknown = sorted(
        name
        for name in environ
        if name.startswith("LOCKSTEP_") and name not in VARIABLES and not _SERVICE_LINK.fullmatch(name)
    )
    if unknown:
        raise BadUsage(f"unknown variable {', '.join(unknown)}", (f"known are {', '.join(sorted(VARIABLES))}",))


def _seconds(text: str | float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadUsage("--timeout is not a number of seconds")
    return seconds


def _check(flags: argparse.Namespace) -> None:
    for name in ("server", "target"):
        if getattr(flags, name) is None:
            raise BadUsage(f"--{name} (or LOCKSTEP_{name.upper()}) is missing")
    if flags.on_failure not in ("fail", "fallback"):
        raise BadUsage("--on-failure is either fail or fallback")
    if (flags.python is None) != (flags.platform is None):
        raise BadUsage("--python and --platform go together: both, or neither for the running interpreter")
    if (flags.namespace is None) != (flags.workload is None):
        raise BadUsage("--namespace and --workload go together")
    if flags.revision is not None and flags.workload is None:
        raise BadUsage("--revision needs --workload")
    if flags.on_failure == "fallback" and flags.requirements not in (None, "-"):
        ours = os.path.join(flags.target, "requirements.txt")
        if os.path.realpath(flags.requirements) == os.path.realpath(ours):
            raise BadUsage(f"--on-failure fallback writes {ours} itself: keep the requirements elsewhere")


def _requirements(flags: argparse.Namespace, environ: Mapping[str, str]) -> str:
    file, lines, text = flags.requirements, flags.requirement, None
    if file is None and lines is None:
        lines, text = environ.get("LOCKSTEP_REQUIREMENT", "").splitlines() or None, environ.get("LOCKSTEP_REQUIREMENTS")
    if lines is not None and (file is not None or text is not None):
        raise BadUsage("requirements are given twice: as a whole (-r), and one by one (--requirement)")
    if lines is not None:
        return "".join(f"{line}\n" for line in lines)
    if file is None and text is None:
        raise BadUsage("no requirements: give -r FILE, --requirement STR or LOCKSTEP_REQUIREMENTS")
    return _read(file) if text is None else text


def _constraints(flags: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    if flags.constraints is not None:
        return _read(flags.constraints)
    return environ.get("LOCKSTEP_CONSTRAINTS") or None


def _read(name: str) -> str:
    try:
        if name == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(name, "rb") as file:
                content = file.read()
    except OSError as error:
        raise BadUsage(f"cannot read {name}: {error.strerror}") from error
    return content.decode("utf-8", "surrogateescape")
