"""What a Pod pays from an empty folder to "imports done": CPU and wall seconds of pip, uv and the client, side by side.

    python -m tests.benchmarks.pod WHEELS [--runs 5] [--set requests --set web --set data] [--work /dev/shm]

All sides get the same wheels from one local index (Lockstep: as its upstream, with the bundle built beforehand), and
import the same packages: every one that the set brings to all of them. Nobody has a cache. The sides take turns, so
that whatever else the machine does meets all of them. CPU is that of the installer and of the imports, their children
included; of the service and the index it is not, as these do not run in the Pod.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uv

from resolver.client.build import archive
from tests.support.index import PackageIndex
from tests.support.interpreters import THIS
from tests.support.real_index import SETS
from tests.support.service import Service

SIDES = ("pip", "uv", "lockstep")
CASES = ("requests", "web", "data")
_TOUCHED = 1 << 30
_SECONDS = 600

# Prints what can be imported, one name a line; a package may want what this machine does not have.
_IMPORTABLE = """
import importlib, os, sys
for name in sorted({entry.partition(".")[0] for entry in os.listdir(sys.argv[1]) if not entry.endswith("-info")}):
    if name.isidentifier() and name[0] not in "_" and name != "sitecustomize":
        try:
            importlib.import_module(name)
        except Exception:
            continue
        print(name)
"""


# Runs what it is given. A process begins with the peak of the one that started it: this one has next to none.
_METER = """
import os, sys, time
started = time.monotonic()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(pid, 0)
print(used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process and its children: seconds, and bytes of memory at the most (of the largest one)."""

    cpu: float
    wall: float
    peak: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side cost for one set, run by run: `install` without the imports, `total` with them."""

    case: str
    side: str
    install: list[Cost] = field(default_factory=list)
    total: list[Cost] = field(default_factory=list)

    def add(self, install: Cost, imports: Cost) -> None:
        """One run more."""
        self.install.append(install)
        peak = max(install.peak, imports.peak)
        self.total.append(Cost(install.cpu + imports.cpu, install.wall + imports.wall, peak))


def cost(argv: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Run to the end, which has to be a good one."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _METER, *argv],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stderr}"
    cpu, wall, peak = done.stdout.splitlines()[-1].split()
    return Cost(float(cpu), float(wall), int(peak))


class Pod:
    """An empty folder with an installer beside it. `clean`: the environment, with no developer's settings in it."""

    def __init__(self, work: Path, index_url: str, service_url: str) -> None:
        self.target = work / "pod"
        self._temporary = work / "tmp"
        self._pyz = work / "lockstep.pyz"
        self._pyz.write_bytes(archive())
        self._index_url = index_url
        self._service_url = service_url
        self._python = str(Path(sys.base_prefix) / "bin" / f"python{THIS}")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(work),
            "TMPDIR": str(self._temporary),
            "PIP_CONFIG_FILE": os.devnull,
            "MPLCONFIGDIR": str(self._temporary),
        }

    def install(self, side: str, requirements: Path) -> Cost:
        """From nothing to a tree of installed packages."""
        for folder in (self.target, self._temporary):
            shutil.rmtree(folder, ignore_errors=True)
        self._temporary.mkdir()
        wanted = ["-r", str(requirements), "--target", str(self.target)]
        wheels = ["--index-url", self._index_url, "--only-binary", ":all:"]
        argv = {
            "pip": [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"],
            "uv": [uv.find_uv_bin(), "pip", "install", "--no-cache", "--no-config", "--python", self._python],
            "lockstep": [self._python, "-I", "-S", str(self._pyz), "fetch", "--server", self._service_url],
        }[side]
        return cost([*argv, *wanted, *(() if side == "lockstep" else wheels)], self._environment)

    def imports(self, side: str, names: Sequence[str]) -> Cost:
        """Start the interpreter, import all of these, end."""
        return cost([self._python, "-c", f"import {', '.join(names)}"], self._importing(side))

    def importable(self, side: str) -> list[str]:
        """The packages and modules at the top of the tree that can be imported here."""
        argv = [self._python, "-W", "ignore", "-c", _IMPORTABLE, str(self._site_packages(side))]
        told = subprocess.run(argv, env=self._importing(side), capture_output=True, text=True, check=True)
        return told.stdout.split()

    def _importing(self, side: str) -> dict[str, str]:
        return {**self._environment, "PYTHONPATH": str(self._site_packages(side))}

    def _site_packages(self, side: str) -> Path:
        return self.target / "site-packages" if side == "lockstep" else self.target


@contextmanager
def pod(wheels: Path, work: Path, flags: Sequence[str] = ()) -> Iterator[Pod]:
    """A Pod, the index with these wheels, and a service on it (with these flags besides)."""
    with PackageIndex() as index:
        for wheel in sorted(wheels.glob("*.whl")):
            index.add(wheel.name, wheel.read_bytes())
        # The interpreter that runs this compiles the byte-code, as in the scenarios.
        interpreter = ("--interpreter", f"{THIS}={sys.executable}")
        with Service(work / "service", index_url=index.url, flags=(*interpreter, *flags)) as service:
            yield Pod(work, index.url, service.url)


def measure(wheels: Path, work: Path, runs: int = 5, cases: Sequence[str] = CASES) -> list[Figures]:
    """All sides for each set, in turn, `runs` times after one run that is not counted. `work` is an empty folder, on
    the file system that is measured."""
    figures = [Figures(case, side) for case in cases for side in SIDES]
    with pod(wheels, work) as here:
        _touch(work)
        for case in cases:
            requirements = SETS / f"{case}.txt"
            names = sorted(set.intersection(*(set(_brought(here, side, requirements)) for side in SIDES)))
            for each in [each for each in figures if each.case == case] * runs:
                install = here.install(each.side, requirements)
                each.add(install, here.imports(each.side, names))
    return figures


def _brought(here: Pod, side: str, requirements: Path) -> list[str]:
    here.install(side, requirements)  # Lockstep's first run finds no bundle: it is not counted
    return here.importable(side)


def _touch(folder: Path) -> None:
    """Use the memory that a virtual machine would otherwise have to be given while it is measured."""
    path = folder / "touched"
    with path.open("wb") as file:
        for _ in range(_TOUCHED >> 20):
            file.write(bytes(1 << 20))
    path.unlink()


def table(figures: Sequence[Figures]) -> str:
    """Medians, and what they are to pip's and uv's."""
    lines = [f"{'set':9} {'side':9} {'install':>9} {'CPU':>8} {'wall':>8} {'peak':>9}   CPU, wall to pip; to uv"]
    for case in dict.fromkeys(each.case for each in figures):
        sides = {each.side: each for each in figures if each.case == case}
        cpu = {side: statistics.median(run.cpu for run in each.total) for side, each in sides.items()}
        wall = {side: statistics.median(run.wall for run in each.total) for side, each in sides.items()}
        for side, each in sides.items():
            install = statistics.median(run.cpu for run in each.install)
            peak = statistics.median(run.peak for run in each.install)
            ratios = "   ".join(
                f"{cpu[side] / cpu[other]:5.2f} {wall[side] / wall[other]:5.2f}"
                for other in ("pip", "uv")
                if other in sides
            )
            lines.append(
                f"{case:9} {side:9} {install:7.3f} s {cpu[side]:6.2f} s {wall[side]:6.2f} s {peak / 2**20:5.0f} MiB"
                f"   {ratios}"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("wheels", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--set", action="append", choices=CASES)
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        print(table(measure(options.wheels, Path(work), options.runs, options.set or CASES)))


if __name__ == "__main__":
    main()
