"""`lockstep fetch` and `lockstep builder`, wherever they are run from: the zipapp, `python -m resolver.client`, the
whole program."""

from __future__ import annotations

import os
import sys

from resolver.client.arguments import parse
from resolver.client.console import Console
from resolver.client.errors import BadUsage, FetchError
from resolver.client.fetch import fetch, tell
from resolver.client.flags import usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str], not_ours: Callable[[], Container[str]] = tuple) -> int:
    """Run `fetch …` or `builder …` (the command's name first); returns the exit code. `not_ours`: see `parse`."""
    console = Console()
    try:
        if list(arguments[:1]) == ["builder"]:
            from resolver.client.builder import main as build  # Pods that fetch need none of it

            return build(arguments[1:], os.environ, console)
        if list(arguments[:1]) != ["fetch"]:
            raise BadUsage("the command is fetch, or builder", ("lockstep fetch --help lists its flags",))
        if "-h" in arguments or "--help" in arguments:
            sys.stdout.write(usage())
            return 0
        fetch(parse(arguments[1:], os.environ, not_ours), console)
    except FetchError as error:
        tell(error, console)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
