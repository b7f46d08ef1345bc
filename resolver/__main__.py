"""The entry of the `lockstep` program, and of `python -m resolver`."""

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resolver import cli

if TYPE_CHECKING:
    from pathlib import Path

    from resolver.doctor.findings import Finding
    from resolver.service.fsck import Checked
    from resolver.service.retain import Collected
    from resolver.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    return cli.main(argv, serve=_serve, gc=_gc, fsck=_fsck, migrate=_migrate, doctor=_doctor)


def _serve(settings: "Settings") -> int:
    gc.disable()  # what is loaded stays, so to look for garbage in it is a sixth of a start; `serve` turns it on again
    # So long does a thread that parses a page keep the event loop waiting, at each of the dozens of steps of a request:
    # with Python's own 5 ms, two such threads bring a service almost to a standstill.
    sys.setswitchinterval(0.001)
    from resolver.main import serve  # loads the whole service, which no other command needs

    return serve(settings)


def _gc(settings: "Settings", dry_run: bool) -> "Collected":
    from resolver.keeping import gc

    return gc(settings, dry_run)


def _fsck(settings: "Settings", repair: bool) -> "Checked":
    from resolver.keeping import fsck

    return fsck(settings, repair)


def _doctor(settings: "Settings", project: str, ca_bundle: "Path | None") -> "list[Finding]":
    from resolver.doctor import examine

    return examine(settings, project, ca_bundle)


def _migrate(settings: "Settings") -> None:
    from resolver.keeping import migrate

    migrate(settings)


if __name__ == "__main__":
    sys.exit(main())
