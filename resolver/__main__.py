"""The entry of the `lockstep` program, and of `python -m resolver`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resolver import cli

if TYPE_CHECKING:
    from resolver.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    return cli.main(argv, serve=_serve)


def _serve(settings: "Settings") -> int:
    from resolver.main import serve  # loads the whole service, which no other command needs

    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
