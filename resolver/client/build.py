"""Builds `lockstep.pyz`: `python -m resolver.client.build dist/lockstep.pyz`.

Equal sources give equal bytes: names in order, one time for all, nothing compressed (what a compressor writes depends
on its version, and a run would pay for undoing it).
"""

import io
import sys
import zipfile
from pathlib import Path

_CLIENT = Path(__file__).parent
_BOOTSTRAP = _CLIENT / "bootstrap.py"
_SHEBANG = b"#!/usr/bin/env python3\n"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
_MAIN = b"import sys\n\nfrom resolver.client.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"


def bootstrap() -> str:
    """The program that brings the client, as an injected init container runs it."""
    return _BOOTSTRAP.read_text(encoding="utf-8")


def archive() -> bytes:
    """The zipapp's bytes."""
    modules = [path for path in _CLIENT.glob("*.py") if path not in (Path(__file__), _BOOTSTRAP)]
    files = {"__main__.py": _MAIN, "resolver/__init__.py": (_CLIENT.parent / "__init__.py").read_bytes()}
    files |= {f"resolver/client/{path.name}": path.read_bytes() for path in modules}
    buffer = io.BytesIO(_SHEBANG)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as zipped:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o100644 << 16
            zipped.writestr(entry, content)
    return buffer.getvalue()


def main(arguments: list[str]) -> None:
    """Write the zipapp to the one path given, made executable."""
    (path,) = map(Path, arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive())
    path.chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1:])
