"""uv, run as a person would run it: the judge of what Lockstep answers."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uv
from packaging.utils import NormalizedName, canonicalize_name

from resolver.domain.targets import TargetEnvironment
from resolver.engines.uv import platform

_PIN = re.compile(r"^([\w.\-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class PlainUv:
    """uv with a folder of its own, as its home and for its cache. `options` (indexes, times) go with every run,
    `seconds` bounds each."""

    folder: Path
    options: Sequence[str] = ()
    seconds: float = 300

    def compile(self, requirements: str, target: TargetEnvironment, *flags: str) -> dict[NormalizedName, str] | None:
        """The versions that are locked for the target from wheels alone; None where there is no solution."""
        return self._compile(requirements, target, "--only-binary", ":all:", *flags)

    def newest(self, requirement: str, target: TargetEnvironment, *, sdists: bool) -> dict[NormalizedName, str]:
        """The newest version of one requirement alone that has a wheel for the target, or with `sdists` also a source
        distribution; none where none has. Its dependencies are not looked at, so nothing has to be built."""
        flags = [] if sdists else ["--only-binary", ":all:"]
        return self._compile(requirement, target, "--no-deps", *flags) or {}

    def install(self, lock: Path, target: Path) -> None:
        """Install what a pylock.toml locks into the folder `target`, for the interpreter that runs the tests."""
        argv = ["pip", "install", "--requirements", str(lock), "--target", str(target), "--python", sys.executable]
        done = self.run([*argv, "--only-binary", ":all:", "--link-mode", "hardlink"])
        assert done.returncode == 0, done.stderr

    def run(self, argv: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One run of uv, to whatever end. Raises TimeoutExpired."""
        always = ["--no-config", "--no-python-downloads", "--cache-dir", str(self.folder / "cache")]
        # What a developer has set for uv would be an option that the service's engine does not have.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "VIRTUAL_ENV"))}
        return subprocess.run(
            [uv.find_uv_bin(), *argv, *self.options, *always],
            input=stdin,
            env={**kept, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=self.seconds,
            check=False,
        )

    def _compile(self, requirements: str, target: TargetEnvironment, *flags: str) -> dict[NormalizedName, str] | None:
        argv = ["pip", "compile", "-", "--no-header", "--no-annotate", *flags, "--python", sys.executable]
        argv += ["--python-version", target.python, "--python-platform", platform(target)]
        done = self.run(argv, requirements)
        if done.returncode != 0:
            assert "No solution found" in done.stderr, done.stderr
            return None
        return {canonicalize_name(name): version for name, version in _PIN.findall(done.stdout)}
