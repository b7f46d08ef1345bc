"""Distributions for tests: valid wheels (PEP 427) and sdists, the same bytes for the same arguments."""

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

from packaging.tags import parse_tag
from packaging.utils import canonicalize_name

_ZIP_TIME = (2020, 1, 1, 0, 0, 0)


def make_wheel(
    name: str,
    version: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    requires: Sequence[str] = (),
    requires_python: str | None = None,
    extras: Sequence[str] = (),
    tag: str = "py3-none-any",
    entry_points: str | None = None,
    data: Mapping[str, str | bytes] | None = None,
    metadata: bytes | None = None,
) -> tuple[str, bytes]:
    """A wheel's filename and content.

    `files` are the package's own (default: `<import name>/__init__.py` with a `__version__`), `data` those under
    `<name>-<version>.data/`, `entry_points` the text of entry_points.txt; `metadata` replaces METADATA whole.
    """
    stem = f"{_import_name(name)}-{version}"
    if files is None:
        files = {f"{_import_name(name)}/__init__.py": f'__version__ = "{version}"\n'}
    if metadata is None:
        metadata = core_metadata(name, version, requires=requires, requires_python=requires_python, extras=extras)
    members = {path: _bytes(content) for path, content in files.items()}
    members |= {f"{stem}.data/{path}": _bytes(content) for path, content in (data or {}).items()}
    members[f"{stem}.dist-info/METADATA"] = metadata
    members[f"{stem}.dist-info/WHEEL"] = _wheel_file(tag)
    if entry_points is not None:
        members[f"{stem}.dist-info/entry_points.txt"] = entry_points.encode()
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{path},sha256={_record_hash(content)},{len(content)}\n" for path, content in members.items()]
    members[record] = "".join([*lines, f"{record},,\n"]).encode()
    return f"{stem}-{tag}.whl", _zip(members)


def make_sdist(
    name: str,
    version: str,
    *,
    setup_py: str | None = None,
    requires: Sequence[str] = (),
    requires_python: str | None = None,
) -> tuple[str, bytes]:
    """An sdist's filename and content. Its metadata is not static (version 2.1): whoever wants it runs `setup_py`."""
    stem = f"{_import_name(name)}-{version}"
    if setup_py is None:
        setup_py = (
            "from setuptools import setup\n"
            f"setup(name={name!r}, version={version!r}, install_requires={list(requires)!r}, "
            f"python_requires={requires_python!r}, py_modules=[{_import_name(name)!r}])\n"
        )
    members = {
        f"{stem}/PKG-INFO": core_metadata(name, version, requires=requires, requires_python=requires_python),
        f"{stem}/{_import_name(name)}.py": f'__version__ = "{version}"\n'.encode(),
        f"{stem}/setup.py": setup_py.encode(),
    }
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return f"{stem}.tar.gz", gzip.compress(tar_bytes.getvalue(), mtime=0)


def core_metadata(
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    requires_python: str | None = None,
    extras: Sequence[str] = (),
) -> bytes:
    """Core metadata, version 2.1."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Summary: {name} for tests"]
    if requires_python is not None:
        lines.append(f"Requires-Python: {requires_python}")
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    return "".join(f"{line}\n" for line in lines).encode()


def _import_name(name: str) -> str:
    return canonicalize_name(name).replace("-", "_")


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _wheel_file(tag: str) -> bytes:
    pure = "true" if tag.endswith("-none-any") else "false"
    lines = ["Wheel-Version: 1.0", "Generator: lockstep-tests", f"Root-Is-Purelib: {pure}"]
    lines += sorted(f"Tag: {single}" for single in parse_tag(tag))
    return "".join(f"{line}\n" for line in lines).encode()


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def _zip(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in members.items():
            info = zipfile.ZipInfo(path, _ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            archive.writestr(info, body)
    return content.getvalue()
