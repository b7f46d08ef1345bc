"""A few dozen packages of every kind that bundles care for: the same bytes for the same name and version."""

import random

from tests.support.index import PackageIndex
from tests.support.wheels import make_wheel

NAMES = tuple(f"part{number:02d}" for number in range(36))

_KINDS = ("plain", "many modules", "extension", "scripts", "path file", "data")


def publish(index: PackageIndex, name: str, version: str) -> None:
    """Put this version of one of NAMES on the index; it requires one or two of those before it."""
    number = NAMES.index(name)
    requires = sorted({NAMES[number // 2], NAMES[number // 3]} - {name})
    files: dict[str, str | bytes] = {f"{name}/__init__.py": f'__version__ = "{version}"\n'}
    data: dict[str, str | bytes] = {}
    entry_points = None
    chance = random.Random(f"{name} {version}")
    match _KINDS[number % len(_KINDS)]:
        case "many modules":
            for module in range(150):
                body = "\n".join(f"def f{line}(x):\n    return [x, {chance.random()}]" for line in range(20))
                files[f"{name}/m{module}.py"] = body + "\n"
        case "extension":
            files[f"{name}/_speedups.so"] = b"\x7fELF" + chance.randbytes(1_500_000)
        case "scripts":
            entry_points = f"[console_scripts]\n{name} = {name}:main\n"
            data = {f"scripts/{name}-tool": "#!python\nprint('here')\n"}
        case "path file":
            files[f"{name}.pth"] = f"import sys; sys.{name} = True\n"
        case "data":
            data = {f"data/share/{name}/table.bin": chance.randbytes(100_000)}
    index.add(*make_wheel(name, version, files=files, data=data, requires=requires, entry_points=entry_points))
