"""Source distributions for tests: well formed, with a backend of their own that needs nothing; and hostile ones."""

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

from packaging.utils import canonicalize_name

from tests.support.wheels import core_metadata

# PEP 517, with nothing but the standard library.
BACKEND = """
import base64, hashlib, os, zipfile

NAME, VERSION, REQUIRES, TAG = {name!r}, {version!r}, {requires!r}, {tag!r}
MODULE = NAME + ".py"

def build_wheel(folder, config_settings=None, metadata_directory=None):
    {code}
    stem = f"{{NAME}}-{{VERSION}}"
    info = f"{{stem}}.dist-info"
    lines = ["Metadata-Version: 2.1", "Name: " + NAME, "Version: " + VERSION]
    lines += ["Requires-Dist: " + text for text in REQUIRES]
    members = {{
        MODULE: open(MODULE, "rb").read(),
        info + "/METADATA": ("\\n".join(lines) + "\\n").encode(),
        info + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: ".encode() + TAG.encode() + b"\\n",
    }}
    record = info + "/RECORD,,\\n"
    for name, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        record += f"{{name}},sha256={{digest}},{{len(content)}}\\n"
    with zipfile.ZipFile(os.path.join(folder, f"{{stem}}-{{TAG}}.whl"), "w") as wheel:
        for name, content in (members | {{info + "/RECORD": record}}).items():
            wheel.writestr(name, content)
    return f"{{stem}}-{{TAG}}.whl"
"""
PYPROJECT = '[build-system]\nrequires = {requires}\nbuild-backend = "{backend}"\nbackend-path = ["."]\n'


def a_sdist(
    name: str,
    version: str = "1.0",
    *,
    code: str = "pass",
    built_as: tuple[str, str] | None = None,
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
    build_requires: Sequence[str] = (),
    backend: str = "backend",
    more: str = "",
    files: Mapping[str, str | None] | None = None,
) -> tuple[str, bytes]:
    """An sdist's filename and content. Its build runs `code` (one statement, or several with `;`) before it writes a
    wheel, of the name and version `built_as`. `more` follows in the backend; `files` replaces members, or (None)
    removes them."""
    stem = import_name(name)
    wheel_name, wheel_version = built_as or (stem, version)
    source = BACKEND.format(name=wheel_name, version=wheel_version, requires=[*requires], tag=tag, code=code)
    members: dict[str, str | None] = {
        "PKG-INFO": core_metadata(name, version).decode(),
        "pyproject.toml": PYPROJECT.format(requires=[*build_requires], backend=backend),
        "backend.py": source + more,
        f"{wheel_name}.py": f"__version__ = {version!r}\n",
        **(files or {}),
    }
    found = {f"{stem}-{version}/{path}": text.encode() for path, text in members.items() if text is not None}
    return f"{stem}-{version}.tar.gz", a_tar(found)


def a_tar(members: Mapping[str, bytes], odd: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """A .tar.gz of files, and of members of any other kind."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for path, body in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
        for info in odd:
            tar.addfile(info)
    return content.getvalue()


def a_zip(members: Mapping[str, bytes]) -> bytes:
    """A .zip of files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in members.items():
            archive.writestr(path, body)
    return content.getvalue()


def import_name(name: str) -> str:
    """What a project's files are called."""
    return canonicalize_name(name).replace("-", "_")
