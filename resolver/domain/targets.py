"""Target classes: what a Pod's interpreter is, as far as wheels care.

What a client reports is snapped to a class, CPython minor version × machine × libc family × rung, so that a
kernel release or a patch version never splits a key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, Self

from packaging import tags
from packaging.markers import Environment, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.version import InvalidVersion, Version

from resolver.domain.errors import UnsupportedTarget

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
MACHINES = ("x86_64", "aarch64")
LADDER: dict[str, tuple[tuple[int, int], ...]] = {
    "glibc": ((2, 17), (2, 28), (2, 31), (2, 34), (2, 36), (2, 39)),
    "musl": ((1, 1), (1, 2)),
}
SUPPORTED = (
    f"CPython {PYTHONS[0]} to {PYTHONS[-1]}; machines {', '.join(MACHINES)}; "
    "platforms manylinux_2_17 and newer, musllinux_1_1 and newer"
)

_MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_PLATFORM = re.compile(r"(manylinux|musllinux)_(\d{1,3})_(\d{1,3})_(\w{1,32})")
_LEGACY = {"manylinux2014": (2, 17)}
_LEGACY_PLATFORM = re.compile(r"(manylinux2014)_(\w{1,32})")
_LIBC = re.compile(r"(glibc|musl) (\d{1,3})\.(\d{1,3})(?:[.\-].{0,32})?")
_NAME = re.compile(r"cp3(\d{1,2})-(\w{1,64})")

# PEP 600: the aliases of the perennial tags, and the lowest glibc that a machine's wheels can ask for.
_MANYLINUX_ALIASES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
_GLIBC_FLOOR = {"x86_64": 5, "aarch64": 17}


@dataclass(frozen=True)
class TargetEnvironment:
    """A target class: marker values (PEP 508) and an ordered list of tags (PEP 425) follow from it."""

    python: str
    machine: str
    libc: Literal["glibc", "musl"]
    rung: tuple[int, int]

    @classmethod
    def from_platform(cls, python: str, platform: str) -> Self:
        """Snap a Python version and a platform tag, such as `manylinux_2_28_x86_64`, to their class.

        Raises:
            UnsupportedTarget: naming what is supported.
        """
        asked = f"python {python[:32]!r}, platform {platform[:64]!r}"
        if match := _LEGACY_PLATFORM.fullmatch(platform):
            return cls._snap(asked, python, match[2], "glibc", _LEGACY[match[1]])
        if match := _PLATFORM.fullmatch(platform):
            libc: Literal["glibc", "musl"] = "glibc" if match[1] == "manylinux" else "musl"
            return cls._snap(asked, python, match[4], libc, (int(match[2]), int(match[3])))
        raise UnsupportedTarget(asked, "not a manylinux or musllinux platform tag", SUPPORTED)

    @classmethod
    def from_markers(cls, markers: Mapping[str, str], libc: str) -> Self:
        """Snap what an interpreter reports of itself (PEP 508 names), and its libc, such as `musl 1.2`.

        Raises:
            UnsupportedTarget: naming what is supported.
        """
        python = markers.get("python_full_version") or markers.get("python_version", "")
        asked = f"python {python[:32]!r}, machine {markers.get('platform_machine', '')[:32]!r}, libc {libc[:32]!r}"
        if markers.get("sys_platform", "linux") != "linux":
            raise UnsupportedTarget(asked, f"sys_platform is {markers['sys_platform'][:32]!r}", SUPPORTED)
        if markers.get("implementation_name", "cpython") != "cpython":
            raise UnsupportedTarget(asked, f"the interpreter is {markers['implementation_name'][:32]!r}", SUPPORTED)
        match = _LIBC.fullmatch(libc)
        if match is None:
            raise UnsupportedTarget(asked, "libc is neither glibc nor musl with a version", SUPPORTED)
        family: Literal["glibc", "musl"] = "glibc" if match[1] == "glibc" else "musl"
        return cls._snap(asked, python, markers.get("platform_machine", ""), family, (int(match[2]), int(match[3])))

    @classmethod
    def from_name(cls, name: str) -> Self:
        """The class with this `name`; the inverse of that property."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise UnsupportedTarget(repr(name[:64]), "not the name of a target class", SUPPORTED)
        return cls.from_platform(f"3.{match[1]}", match[2])

    @classmethod
    def _snap(
        cls, asked: str, python: str, machine: str, libc: Literal["glibc", "musl"], version: tuple[int, int]
    ) -> Self:
        try:
            # CPython built from a source tree behind a tag says `3.12.1+`, which PEP 440 has not.
            release = Version(python[:64].removesuffix("+")).release
        except InvalidVersion:
            raise UnsupportedTarget(asked, "the Python version is not one", SUPPORTED) from None
        minor = ".".join(str(part) for part in release[:2])
        if minor not in PYTHONS:
            raise UnsupportedTarget(asked, f"Python {minor} is not supported", SUPPORTED)
        machine = _MACHINE_ALIASES.get(machine.lower(), machine)
        if machine not in MACHINES:
            raise UnsupportedTarget(asked, f"machine {machine!r} is not supported", SUPPORTED)
        # PEP 600, 656: a later major version promises nothing to the wheels of an earlier one.
        reached = [rung for rung in LADDER[libc] if rung[0] == version[0] and rung <= version]
        if not reached:
            raise UnsupportedTarget(asked, f"there is no class for {libc} {version[0]}.{version[1]}", SUPPORTED)
        return cls(minor, machine, libc, reached[-1])

    @property
    def platform(self) -> str:
        """The platform tag of the class, such as `musllinux_1_2_x86_64`."""
        family = "manylinux" if self.libc == "glibc" else "musllinux"
        return f"{family}_{self.rung[0]}_{self.rung[1]}_{self.machine}"

    @property
    def name(self) -> str:
        """The class in one word, such as `cp312-musllinux_1_2_x86_64`."""
        return f"cp{self.python.replace('.', '')}-{self.platform}"

    @property
    def minor(self) -> tuple[int, int]:
        """The Python version as numbers."""
        major, minor = self.python.split(".")
        return int(major), int(minor)

    @cached_property
    def markers(self) -> Environment:
        """The marker values of the class's base (PEP 508): patch release 0, no kernel named."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    @cached_property
    def marker(self) -> str:
        """A marker expression that holds for the class, and for no other as far as markers can tell."""
        return (
            f"implementation_name == 'cpython' and platform_machine == '{self.machine}' "
            f"and python_version == '{self.python}' and sys_platform == 'linux'"
        )

    def holds(self, marker: Marker | None, extra: str = "") -> bool:
        """Whether the marker (None: always) holds for the class, with this extra active.

        Raises:
            ValueError: it compares what cannot be compared, or names what there is not.
        """
        if marker is None:
            return True
        try:
            return marker.evaluate({**self._marker_values, "extra": extra})
        except UndefinedEnvironmentName as error:
            raise ValueError(f"the marker names {error.args[0]!r}, which has no value here") from None
        except UndefinedComparison:
            raise ValueError(f"the marker compares what cannot be compared: {marker}") from None

    @cached_property
    def _marker_values(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.markers.items()}

    @cached_property
    def tags(self) -> tuple[tags.Tag, ...]:
        """The tags that the class installs, best first (PEP 425, 600, 656)."""
        return _tags(self)

    def _platforms(self) -> list[str]:
        major, top = self.rung
        if self.libc == "musl":
            return [f"musllinux_{major}_{minor}_{self.machine}" for minor in range(top, -1, -1)] + [
                f"linux_{self.machine}"
            ]
        platforms = []
        for minor in range(top, _GLIBC_FLOOR[self.machine] - 1, -1):
            platforms.append(f"manylinux_{major}_{minor}_{self.machine}")
            if alias := _MANYLINUX_ALIASES.get((major, minor)):
                platforms.append(f"{alias}_{self.machine}")
        return [*platforms, f"linux_{self.machine}"]

    def __str__(self) -> str:
        return self.name


@lru_cache(maxsize=256)  # a request makes its target anew; there are fewer classes than that
def _tags(target: TargetEnvironment) -> tuple[tags.Tag, ...]:
    interpreter = f"cp{target.python.replace('.', '')}"
    platforms = target._platforms()
    return (
        *tags.cpython_tags(target.minor, abis=[interpreter], platforms=platforms),
        *tags.compatible_tags(target.minor, interpreter=interpreter, platforms=platforms),
    )
