"""A local copy of what an index has for the sets that are measured, and a server for it that is nobody's bottleneck.

The project pages are whole, as the index had them when the copy was made (a resolver reads thousands of files that it
does not take); of the files, there are the wheels that the sets lock to on this machine, with their METADATA. The
copy is kept under `$XDG_CACHE_HOME/lockstep-bench`, outside of the tree, and made anew when the sets change.
"""

import argparse
import asyncio
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from contextlib import ExitStack
from datetime import UTC
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from packaging.utils import canonicalize_name

from resolver.domain.ports import Project, ProjectFile
from resolver.domain.requests import Index
from resolver.engines.pip import default_index_url
from resolver.upstream.pages import SimplePages
from resolver.upstream.transfer import index_client
from tests.support.index_pages import core_metadata
from tests.support.interpreters import THIS
from tests.support.plain_uv import PlainUv
from tests.support.service import ROOT

SETS = Path(__file__).with_name("sets")
SET_NAMES = ("requests", "web", "data")
_JSON = "application/vnd.pypi.simple.v1+json"
_BYTES = "application/octet-stream"
_PARALLEL = 8


def cache_folder() -> Path:
    """Where copies are kept: one for each Python, machine and state of the sets."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    texts = b"".join((SETS / f"{name}.txt").read_bytes() for name in SET_NAMES)
    return home / "lockstep-bench" / f"mirror-v1-{THIS}-{platform.machine()}-{hashlib.sha256(texts).hexdigest()[:8]}"


def fill(folder: Path) -> None:
    """Make the copy from the engines' own default index, if it is not there."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        making = Path(scratch, "mirror")
        for part in ("pages", "files"):
            (making / part).mkdir(parents=True)
        asyncio.run(_copy(_locked(Path(scratch)), making))
        making.rename(folder)


def _locked(scratch: Path) -> dict[str, set[str]]:
    """The wheels that each package of the sets is locked to on this machine: for its Python as it is, and as a target
    class has it (the base of its minor version, for which there may be a backport more)."""
    found: dict[str, set[str]] = {}
    for name, flags in product(SET_NAMES, ((), ("--python-version", THIS))):
        argv = ["pip", "compile", "-", "--format", "pylock.toml", "--only-binary", ":all:", "--python", sys.executable]
        done = PlainUv(scratch).run([*argv, *flags], (SETS / f"{name}.txt").read_text())
        if done.returncode:
            raise RuntimeError(f"{name}.txt cannot be locked here: {done.stderr}")
        for package in tomllib.loads(done.stdout)["packages"]:
            wheels = {wheel.get("name") or wheel["url"].rpartition("/")[2] for wheel in package["wheels"]}
            found.setdefault(package["name"], set()).update(wheels)
    return found


async def _copy(locked: dict[str, set[str]], folder: Path) -> None:
    index = Index("pypi", default_index_url())
    slots = asyncio.Semaphore(_PARALLEL)
    async with index_client("bench") as client:
        pages = SimplePages(client)

        async def one(name: str, wheels: set[str]) -> None:
            async with slots:
                project = await pages.reread(canonicalize_name(name), index)
                if project is None:
                    raise RuntimeError(f"the index has no {name}, which was just locked")
                for file in project.files:
                    if file.filename in wheels:
                        await asyncio.to_thread(_keep, folder / "files", file, await _bytes(client, file.url))
                await asyncio.to_thread(_write_page, folder, project)

        async with asyncio.TaskGroup() as group:
            for name, wheels in locked.items():
                group.create_task(one(name, wheels))
        await pages.close()


async def _bytes(client: httpx.AsyncClient, url: str) -> bytes:
    answer = await client.get(url, timeout=600)
    return answer.raise_for_status().content


def _keep(files: Path, file: ProjectFile, content: bytes) -> None:
    if file.sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise RuntimeError(f"{file.filename} is not what the index says")
    (files / file.filename).write_bytes(content)
    (files / f"{file.filename}.metadata").write_bytes(core_metadata(content) or b"")


def _write_page(folder: Path, project: Project) -> None:
    page = {
        "meta": {"api-version": "1.1"},
        "name": project.name,
        "files": [_entry(folder / "files", file) for file in project.files],
    }
    (folder / "pages" / f"{project.name}.json").write_text(json.dumps(page))


def _entry(files: Path, file: ProjectFile) -> dict[str, Any]:
    """A file as PEP 691 and 700 have it; with PEP 658's METADATA where the mirror has the file."""
    entry: dict[str, Any] = {
        "filename": file.filename,
        "url": f"/files/{file.filename}",
        "hashes": {"sha256": file.sha256} if file.sha256 else {},
        "requires-python": file.requires_python,
        "yanked": False if file.yanked is None else file.yanked or True,
        "core-metadata": False,
    }
    if file.upload_time is not None:
        entry["upload-time"] = file.upload_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if (metadata := files / f"{file.filename}.metadata").exists():
        entry["size"] = (files / file.filename).stat().st_size
        entry["core-metadata"] = {"sha256": hashlib.sha256(metadata.read_bytes()).hexdigest()}
    return entry


class Mirror:
    """The copy, served on loopback by a process of its own while the context is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        argv = [sys.executable, "-m", "tests.benchmarks.mirror", "--serve", str(self.folder)]
        process = self._stack.enter_context(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        self._stack.callback(process.terminate)
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the mirror does not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, paths: dict[str, tuple[Path, str]], *args: Any) -> None:
        self._paths = paths
        super().__init__(*args)

    def do_GET(self) -> None:
        found = self._paths.get(self.path)
        if found is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, content_type = found
        with path.open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.connection.sendfile(file)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def _serve(folder: Path) -> None:
    paths = {f"/files/{path.name}": (path, _BYTES) for path in (folder / "files").iterdir()}
    paths |= {f"/simple/{path.stem}/": (path, _JSON) for path in (folder / "pages").iterdir()}
    with _Server(("127.0.0.1", 0), partial(_Handler, paths)) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/simple", flush=True)
        server.serve_forever()


def main() -> None:
    """Make the copy, or serve one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mirror")
    parser.add_argument("--serve", type=Path, metavar="FOLDER", help="serve this copy, and say its URL")
    parser.add_argument("--refresh", action="store_true", help="make the copy anew")
    options = parser.parse_args()
    if options.serve is not None:
        _serve(options.serve)
        return
    folder = cache_folder()
    if options.refresh:
        shutil.rmtree(folder, ignore_errors=True)
    fill(folder)
    print(folder)


if __name__ == "__main__":
    main()
