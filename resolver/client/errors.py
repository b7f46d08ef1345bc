"""Why a fetch ends without a bundle, each with its exit code (those of sysexits.h).

FetchError
├── BadUsage     64  flags or variables that make no sense; nothing was tried
├── Refused      65  the requirements cannot be satisfied, or are not allowed
├── Unavailable  69  the service or an index did not answer as it should, in all the time there was
│   └── Unknown      the service does not know, or no longer, what it was asked for
├── CannotWrite  73  the target folder: full, read-only, or something that is not ours stands in it
├── Mismatch     76  what arrived is not what its digest names, or names something that is no layer
└── NotAllowed   77  the service wants another token, or none can be shown
"""

from __future__ import annotations


class FetchError(Exception):
    """The root: a message for a person, and further lines (`hints`) that help them on."""

    exit_code = 70

    def __init__(self, message: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.hints = hints


class BadUsage(FetchError):
    """Flags or variables that make no sense."""

    exit_code = 64


class Refused(FetchError):
    """The requirements cannot be satisfied, or are not allowed."""

    exit_code = 65


class Unavailable(FetchError):
    """The service or an index did not answer as it should."""

    exit_code = 69


class Unknown(Unavailable):
    """The service does not know, or no longer, what it was asked for."""


class CannotWrite(FetchError):
    """The target folder cannot be written."""

    exit_code = 73


class Mismatch(FetchError):
    """What arrived is not what was named."""

    exit_code = 76


class NotAllowed(FetchError):
    """The caller may not do this."""

    exit_code = 77
