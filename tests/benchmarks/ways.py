"""The ways in which packages get into a Pod, pip's, uv's and ours: CPU and wall seconds from nothing to "imports done".

    python -m tests.benchmarks.ways [--set data] [--side pip] [--runs 3] [--work DIR]

Every way has the wheels from one mirror (Lockstep: as its upstream, the bundle built beforehand) and imports the same
packages; the ways take turns. `uv, warm cache`: a cache that has all of it, on the volume of the target or on another.
`mounted`: nothing is installed, the tree is there, as an image volume has it: the bundle's layers in a read-only
overlay mount. Where this machine mounts none, it is a folder that nobody writes to, and its rows say so. `imports
alone`: what any way pays at the least, from uv's tree with byte-code.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import uv

from resolver.client.environment import target
from tests.benchmarks.image_volume import mounted
from tests.benchmarks.limits import Absent
from tests.benchmarks.mirror import SET_NAMES, SETS, Mirror, cache_folder, fill
from tests.benchmarks.pod import Cost, Pod, cost
from tests.benchmarks.report import console, show
from tests.benchmarks.rows import Row, rows
from tests.support.interpreters import THIS
from tests.support.service import Service

PLAIN = ("pip", "uv", "lockstep", "lockstep, mounted")
"""Where time is short."""
SIDES = (
    *PLAIN,
    "uv, byte-code",
    "uv, warm cache",
    "uv, warm cache, byte-code",
    "uv, warm cache elsewhere",
    "uv, warm cache elsewhere, byte-code",
    "imports alone",
)
_SECONDS = 900
_NOTHING = Cost(0.0, 0.0, 0)
_MOUNTED = "lockstep, mounted"
_READY = {_MOUNTED: "lockstep", "imports alone": "uv, byte-code"}
"""The sides whose tree is there before, and how it is made (of the mounted one: where it cannot be mounted)."""


class Ways(Pod):
    """A Pod with the further ways. `elsewhere`: a folder on another volume. Closed at the end."""

    def __init__(self, work: Path, elsewhere: Path, index_url: str, service_url: str) -> None:
        super().__init__(work, index_url, service_url)
        self._here = self.target
        self._ready = work / "ready"
        self._volume = ExitStack()
        self._mounted: Path | None = None
        self._caches = {"uv, warm cache": work / "cache", "uv, warm cache elsewhere": elsewhere / "cache"}

    def prepare(self, side: str, requirements: Path) -> None:
        """Fill a cache, make a tree that is to be there; the installer of a side without either runs once."""
        if side not in _READY:
            self.install(side, requirements)
            return
        if side == _MOUNTED and self._mount(requirements):
            return
        self.target = self._place(side)
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.parent.mkdir(exist_ok=True)
        self._install_there(_READY[side], requirements)
        self.target = self._here

    def _mount(self, requirements: Path) -> bool:
        """Whether the bundle could be mounted, in the place of one that was mounted before."""
        self.close()
        body = {"requirements": requirements.read_text(), "target": target()}
        answer = httpx.post(f"{self._service_url}/v1/resolve", json=body, timeout=_SECONDS).raise_for_status().json()
        self._ready.mkdir(exist_ok=True)
        folder = Path(self._volume.enter_context(tempfile.TemporaryDirectory(dir=self._ready)))
        try:
            self._mounted = self._volume.enter_context(mounted(self._service_url, answer["bundle"]["digest"], folder))
        except Absent as why:
            console.print(f"{_MOUNTED}: {why}")
        return self._mounted is not None

    def told(self, side: str) -> str:
        """The side as its rows name it."""
        return "lockstep, a folder" if side == _MOUNTED and self._mounted is None else side

    def close(self) -> None:
        """Unmount what is mounted."""
        self._mounted = None
        self._volume.close()

    def install(self, side: str, requirements: Path) -> Cost:
        """See Pod."""
        if side in _READY:
            return _NOTHING
        self.target = self._here
        return self._install_there(side, requirements)

    def _install_there(self, side: str, requirements: Path) -> Cost:
        if side in ("pip", "uv", "lockstep"):
            return super().install(side, requirements)
        shutil.rmtree(self.target, ignore_errors=True)
        self._temporary.mkdir(exist_ok=True)
        name, bytecode = side.removesuffix(", byte-code"), side.endswith(", byte-code")
        argv = [uv.find_uv_bin(), "pip", "install", "--no-config", "--python", self._python, "--only-binary", ":all:"]
        argv += ["--index-url", self._index_url, "-r", str(requirements), "--target", str(self.target)]
        argv += ["--cache-dir", str(self._caches[name])] if name in self._caches else ["--no-cache"]
        return cost([*argv, "--compile-bytecode"] if bytecode else argv, self._environment)

    def imports(self, side: str, names: Sequence[str]) -> Cost:
        """See Pod. A Pod's first import may write byte-code where it can, and pays for it."""
        self.target = self._place(side)
        try:
            return super().imports(side, names)
        finally:
            self.target = self._here

    def _place(self, side: str) -> Path:
        if side == _MOUNTED and self._mounted is not None:
            return self._mounted
        return self._ready / side.replace(" ", "-") if side in _READY else self._here

    def _site_packages(self, side: str) -> Path:
        return self.target / "site-packages" if side.startswith("lockstep") else self.target


def measure(
    here: Ways, place: str, runs: int = 3, sets: Sequence[str] = SET_NAMES, sides: Sequence[str] = SIDES
) -> list[Row]:
    """The ways in turn, `runs` times for each set; `place` tells in the rows where and how."""
    found: list[Row] = []
    for name in sets:
        requirements = SETS / f"{name}.txt"
        for _ in range(2):
            here.install("lockstep", requirements)  # the first one builds the bundle, or waits for it
        ours = set(here.importable("lockstep"))
        here.install("uv", requirements)
        # What both have: a lock answers markers of a patch version for the lowest of its class.
        names = sorted(ours & set(here.importable("uv")))
        for side in sides:
            if side not in ("pip", "uv", "lockstep"):
                here.prepare(side, requirements)
        installs: dict[str, list[Cost]] = {side: [] for side in sides}
        totals: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for side in [*sides] * runs:
            install = here.install(side, requirements)
            imports = here.imports(side, names)
            installs[side].append(install)
            totals[side].append((install.cpu + imports.cpu, install.wall + imports.wall))
        case = f"{name}, {place}"
        by_name = {here.told(side): values for side, values in totals.items()}
        found += rows("pod", case, "CPU s", {side: [cpu for cpu, _ in values] for side, values in by_name.items()})
        found += rows("pod", case, "wall s", {side: [wall for _, wall in values] for side, values in by_name.items()})
        installing = {side: [each.cpu for each in values] for side, values in installs.items() if side not in _READY}
        found += rows("pod", case, "CPU s without imports", installing)
    return found


@contextmanager
def service(index_url: str, data: Path, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A service on the mirror, which compiles byte-code with the interpreter that runs this."""
    flags = ("--interpreter", f"{THIS}={sys.executable}")
    with Service(data, index_url=index_url, flags=flags, environment=environment) as started:
        yield started


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the rows where `--json` says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ways")
    parser.add_argument("--set", action="append", choices=SET_NAMES, dest="sets")
    parser.add_argument("--side", action="append", choices=SIDES, dest="sides")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--place", default="here", help="what the rows say of where and how")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--elsewhere", type=Path, default=Path("/dev/shm"), help="another volume")
    parser.add_argument("--data", type=Path, help="the data folder of a service; absent: a new one")
    parser.add_argument("--index-url", help="of a mirror that runs; absent: one is started")
    parser.add_argument("--service-url", help="of a service that runs; absent: one is started")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.work, prefix="ways-")))
        elsewhere = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.elsewhere, prefix="ways-")))
        index_url, service_url = options.index_url, options.service_url
        if index_url is None:
            fill(cache_folder())
            index_url = stack.enter_context(Mirror(cache_folder())).url
        if service_url is None:
            service_url = stack.enter_context(service(index_url, options.data or work / "service")).url
        here = stack.enter_context(closing(Ways(work, elsewhere, index_url, service_url)))
        found = measure(here, options.place, options.runs, options.sets or SET_NAMES, options.sides or SIDES)
    if options.json is not None:
        options.json.write_text(json.dumps(found))
    else:
        show(found, console)


if __name__ == "__main__":
    main()
