"""Builds `lockstep.pyz`: `python -m resolver.client.build dist/lockstep.pyz [PYTHON …]`.

It holds the client's sources, and its byte-code for the Pythons that are named (by default the running one), each in a
folder of its own: compiling the sources costs a small fetch as much CPU as all else that it does. A Python that finds
none of its own takes the sources.

Equal sources and equal Pythons give equal bytes: names in order, one time for all, nothing compressed (what a
compressor writes depends on its version, and a run would pay for undoing it), byte-code by fresh interpreters.
"""

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_CLIENT = Path(__file__).parent
_BOOTSTRAP = _CLIENT / "bootstrap.py"
_SHEBANG = b"#!/usr/bin/env python3\n"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
_MAIN = b"""\
import sys

sys.path.insert(0, f"{sys.path[0]}/{sys.implementation.cache_tag}")  # where byte-code for this Python is, if any

from resolver.client.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
# Without docstrings, which nobody reads there. PEP 552 has the form: a hash of the source that nobody compares it with.
_COMPILE = """
import base64, importlib.util, json, marshal, sys
compiled = {}
for name, source in json.load(sys.stdin).items():
    code = compile(source, name, "exec", dont_inherit=True, optimize=2)
    head = importlib.util.MAGIC_NUMBER + b"\\1\\0\\0\\0" + importlib.util.source_hash(source.encode())
    compiled[f"{sys.implementation.cache_tag}/{name}c"] = base64.b64encode(head + marshal.dumps(code)).decode()
print(json.dumps(compiled))
"""
_SECONDS = 60


def bootstrap() -> str:
    """The program that brings the client, as an injected init container runs it."""
    return _BOOTSTRAP.read_text(encoding="utf-8")


def archive(pythons: Sequence[str | Path] = (sys.executable,)) -> bytes:
    """The zipapp's bytes. Raises CalledProcessError, OSError or TimeoutExpired for a Python that compiles nothing."""
    modules = [path for path in _CLIENT.glob("*.py") if path not in (Path(__file__), _BOOTSTRAP)]
    sources = {"resolver/__init__.py": (_CLIENT.parent / "__init__.py").read_bytes()}
    sources |= {f"resolver/client/{path.name}": path.read_bytes() for path in modules}
    files = {"__main__.py": _MAIN, **sources}
    for python in pythons:
        files |= _compiled(python, sources)
    buffer = io.BytesIO(_SHEBANG)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as zipped:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o100644 << 16
            zipped.writestr(entry, content)
    return buffer.getvalue()


def _compiled(python: str | Path, sources: Mapping[str, bytes]) -> dict[str, bytes]:
    told = subprocess.run(
        [python, "-S", "-s", "-c", _COMPILE],
        input=json.dumps({name: content.decode() for name, content in sorted(sources.items())}),
        cwd="/",  # nothing of a working folder is imported
        env={**os.environ, "PYTHONHASHSEED": "0"},  # sets are written in the order of their hashes
        stdout=subprocess.PIPE,
        text=True,
        timeout=_SECONDS,
        check=True,
    ).stdout
    return {name: base64.b64decode(content) for name, content in json.loads(told).items()}


def main(arguments: list[str]) -> None:
    """Write the zipapp to the first path given, made executable; the others are Pythons."""
    target, *pythons = arguments
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive(pythons or (sys.executable,)))
    path.chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1:])
