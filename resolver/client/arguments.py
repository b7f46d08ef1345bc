"""What the client was told: flags first, then variables named `LOCKSTEP_<FLAG>`.

Two variables hold the text itself instead of a file's name: LOCKSTEP_REQUIREMENTS (`-r`) and LOCKSTEP_CONSTRAINTS
(`-c`). Lists stand in one variable: LOCKSTEP_REQUIREMENT one a line, LOCKSTEP_INDEX between commas or blanks.
A variable that is empty counts as not set, LOCKSTEP_REQUIREMENTS apart: an empty set is a request.
"""

from __future__ import annotations

import math
import os
import sys

from resolver.client.errors import BadUsage
from resolver.client.flags import DEFAULT_TIMEOUT, FLAGS, read_flags, spelled

TYPE_CHECKING = False  # `typing` itself costs a run several milliseconds of CPU
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

VARIABLES = frozenset(f"LOCKSTEP_{name.upper()}" for name in FLAGS)
# Kubernetes injects these for Services whose names begin with "lockstep": LOCKSTEP_SERVICE_HOST,
# LOCKSTEP_PORT_8080_TCP_ADDR, LOCKSTEP_DB_SERVICE_PORT_SQL… They are not meant for us.
_SERVICE_LINK = (
    r"LOCKSTEP_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


class Options:
    """A fetch as it was asked for. `requirements` is the text as it came: bytes that are not UTF-8 are kept as
    lone surrogates, so that it can be written back whole. Times are seconds."""

    def __init__(self, given: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> None:
        """Raises BadUsage."""

        def told(name: str) -> str | None:
            return given[name][-1] if name in given else environ.get(f"LOCKSTEP_{name.upper()}") or None

        def needed(name: str) -> str:
            value = told(name)
            if value is None:
                raise BadUsage(f"{spelled(name)} (or LOCKSTEP_{name.upper()}) is missing")
            return value

        self.server = needed("server")
        self.target = os.path.abspath(needed("target"))
        self.indexes = [*given.get("index", environ.get("LOCKSTEP_INDEX", "").replace(",", " ").split())]
        self.namespace = told("namespace")
        self.workload = told("workload")
        self.revision = told("revision")
        self.python = told("python")
        self.platform = told("platform")
        self.token_file = told("token_file")
        self.ca_file = told("ca_file")
        self.timeout = _seconds(told("timeout"))
        on_failure = told("on_failure") or "fail"
        if on_failure not in ("fail", "fallback"):
            raise BadUsage("--on-failure is either fail or fallback")
        self.fallback = on_failure == "fallback"
        self._check()
        if self.fallback and "requirements" in given:
            self._keep_apart(given["requirements"][-1])
        self.requirements = _requirements(given, environ)
        self.constraints = _constraints(given, environ)

    def _check(self) -> None:
        if (self.python is None) != (self.platform is None):
            raise BadUsage("--python and --platform go together: both, or neither for the running interpreter")
        if self.namespace is not None and self.workload is None:
            raise BadUsage("--namespace needs --workload")
        if self.revision is not None and self.workload is None:
            raise BadUsage("--revision needs --workload")

    def _keep_apart(self, file: str) -> None:
        ours = f"{self.target}/requirements.txt"
        if file != "-" and os.path.realpath(file) == os.path.realpath(ours):
            raise BadUsage(f"--on-failure fallback writes {ours} itself: keep the requirements elsewhere")


def parse(
    arguments: Sequence[str], environ: Mapping[str, str], not_ours: Callable[[], Container[str]] = tuple
) -> Options:
    """The options of one run. `not_ours` tells variables that mean something to others, where it comes to that.

    Raises:
        BadUsage: naming the flag or variable. Its value is never shown.
    """
    given = read_flags(arguments)
    _refuse_unknown(environ, not_ours)
    return Options(given, environ)


def _refuse_unknown(environ: Mapping[str, str], not_ours: Callable[[], Container[str]]) -> None:
    unknown = sorted(name for name in environ if name.startswith("LOCKSTEP_") and name not in VARIABLES)
    if unknown:
        import re  # most Pods have none of these

        others = not_ours()
        unknown = [name for name in unknown if name not in others and not re.fullmatch(_SERVICE_LINK, name)]
    if unknown:
        raise BadUsage(f"unknown variable {', '.join(unknown)}", (f"known are {', '.join(sorted(VARIABLES))}",))


def _seconds(text: str | None) -> float:
    try:
        seconds = DEFAULT_TIMEOUT if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadUsage("--timeout is not a number of seconds")
    return seconds


def _requirements(given: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> str:
    file, lines, text = given.get("requirements"), given.get("requirement"), None
    if file is None and lines is None:
        lines, text = environ.get("LOCKSTEP_REQUIREMENT", "").splitlines() or None, environ.get("LOCKSTEP_REQUIREMENTS")
    if lines is not None and (file is not None or text is not None):
        raise BadUsage("requirements are given twice: as a whole (-r), and one by one (--requirement)")
    if lines is not None:
        return "".join(f"{line}\n" for line in lines)
    if file is not None:
        return _read(file[-1])
    if text is None:
        raise BadUsage("no requirements: give -r FILE, --requirement STR or LOCKSTEP_REQUIREMENTS")
    return text


def _constraints(given: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> str | None:
    file = given.get("constraints")
    return _read(file[-1]) if file is not None else environ.get("LOCKSTEP_CONSTRAINTS") or None


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
