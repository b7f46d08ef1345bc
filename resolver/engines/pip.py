"""The pip engine: `pip install --dry-run --report`, wheels only, run by an interpreter of the target's own Python.

pip evaluates markers with the interpreter that runs it (pypa/pip#11664), so it answers only for a target whose markers
that interpreter has. pip merges its indexes, and so answers only for one (dependency confusion).
"""

import asyncio
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import pip
from packaging.pylock import Package, PackageWheel, Pylock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pip._internal.models.index import PyPI

from resolver.domain.errors import EngineFailed, InvalidRequest, LockstepError, UnsupportedTarget
from resolver.domain.outcomes import NoSolution
from resolver.domain.redaction import redact
from resolver.domain.requests import Index, Question
from resolver.domain.requirements import parse_requirement
from resolver.domain.targets import TargetEnvironment
from resolver.engines import built, wheels_only_pip
from resolver.engines.cache import LIMIT, EngineCache
from resolver.engines.files import requirement_files
from resolver.engines.indexes import URL, unavailable
from resolver.engines.narrowing import one_wheel_each
from resolver.engines.process import Completed, run, scratch, shown

_OUTPUT_LIMIT = 64 * 1024 * 1024
_PIP = Path(pip.__file__).with_name("__pip-runner__.py")  # what pip's own `--python` runs in another interpreter

# pip passes over a page that it could not have, and says so in its log alone. 404 is the index's way to say no.
_SKIPPED = re.compile(
    r"Could not fetch URL (?P<url>\S+): (?P<reason>(?!404 ).*) - skipping"
    r"|Skipping page (?P<page>\S+) because (?P<why>.*)"
)
_WARNING = re.compile(r"^\s*WARNING: .*\n?", re.MULTILINE)
_ASKED = re.compile(r"Fetching project page and analyzing links: (?P<url>\S+)")
_NO_SOLUTION = re.compile(r"No matching distribution found|ResolutionImpossible")
_CONFLICT = re.compile(r"^The conflict is caused by:.*", re.MULTILINE | re.DOTALL)
_TRACEBACK = "Traceback (most recent call last)"
_NO_UPLOAD_TIME = "does not provide upload-time metadata"
_INDEX_TROUBLE = re.compile(
    r"Max retries exceeded|HTTP error|Client Error|Server Error|Connection broken|DO NOT MATCH THE HASHES"
    r"|Exceeded \d+ redirects|error: (?:connection-\S+|incomplete-download)|in parse_links"
)


def default_index_url() -> str:
    """The index that engines ask where none is configured, as pip has it."""
    return str(PyPI.simple_url)


class PipLocker:
    """Locks with pip, for targets of this machine whose Python is among `interpreters` (`3.12` → its path).

    `cache` is pip's cache folder, shared by all runs, of about `cache_limit` bytes; `timeout` (seconds) bounds a whole
    lock, `memory` (bytes) each run of it, `http_timeout` (seconds) and `retries` every request. Runs have their folders
    in `workspace` (absent: where the system keeps temporary files).
    """

    name = "pip"

    def __init__(
        self,
        interpreters: Mapping[str, Path],
        cache: Path,
        *,
        cache_limit: int = LIMIT,
        timeout: float = 300,
        memory: int = 4 * 1024**3,
        http_timeout: int = 15,
        retries: int = 3,
        workspace: Path | None = None,
    ) -> None:
        self._interpreters = dict(interpreters)
        self._cache = EngineCache(cache, cache_limit)
        self._timeout = timeout
        self._memory = memory
        self._http_timeout = http_timeout
        self._retries = retries
        self._workspace = workspace

    async def lock(self, question: Question) -> Pylock | NoSolution:
        """Resolve: see `Locker.lock`; and raises InvalidRequest for more indexes than one.

        Of a version whose best wheel has none of the hashes asked for, pip shows no other wheel: it is left out.
        """
        self._interpreter(question.target)
        return await one_wheel_each(self._ask, question, engine=self.name, timeout=self._timeout)

    def _interpreter(self, target: TargetEnvironment) -> Path:
        machine = platform.machine()
        supported = f"with the pip engine, Python {', '.join(self._interpreters) or '(none found)'} on {machine}"
        if target.machine != machine:
            raise UnsupportedTarget(target.name, f"pip would take its markers from {machine}", supported)
        if target.python not in self._interpreters:
            raise UnsupportedTarget(target.name, f"no interpreter of Python {target.python} is at hand", supported)
        return self._interpreters[target.python]

    async def _ask(self, question: Question) -> Pylock | NoSolution:
        files = requirement_files(question)
        async with scratch(self._workspace) as folder, self._cache.part(question.indexes) as cache:
            await asyncio.to_thread((folder / "requirements.txt").write_text, files.requirements)
            await asyncio.to_thread((folder / "constraints.txt").write_text, files.constraints)
            arguments = [*_arguments(question), *await asyncio.to_thread(built.lay_out, question.built_here, folder)]
            completed = await run(
                [self._interpreter(question.target), "-I", "-B", wheels_only_pip.__file__, _PIP, *arguments],
                engine=self.name,
                env=self._environment(question.indexes, cache),
                cwd=folder,
                timeout=self._timeout,
                memory=self._memory,
                output_limit=_OUTPUT_LIMIT,
            )
            log = await asyncio.to_thread(_read, folder / "pip.log")
            report = await asyncio.to_thread(_read, folder / "report.json")
        if skipped := _SKIPPED.search(log):
            url, reason = skipped["url"] or skipped["page"], skipped["reason"] or skipped["why"]
            raise unavailable(question.indexes, url, reason)
        if completed.returncode != 0:
            return _refusal(completed, log, question)
        return _answer(json.loads(report), question)

    def _environment(self, indexes: tuple[Index, ...], cache: Path) -> dict[str, str]:
        """The index, in the environment because there alone a credential shows up in no list of processes."""
        if len(indexes) != 1:
            reason = f"the pip engine takes one index, not {len(indexes)}: it would merge them (dependency confusion)"
            raise InvalidRequest(reason, field="indexes")
        return {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": indexes[0].url,
            "PIP_CACHE_DIR": str(cache),
            "PIP_TIMEOUT": str(self._http_timeout),
            "PIP_RETRIES": str(self._retries),
        }


def _arguments(question: Question) -> list[str]:
    policy, target = question.policy, question.target
    arguments = ["install", "--dry-run", "--ignore-installed", "--report", "report.json", "--log", "pip.log"]
    arguments += ["--requirement", "requirements.txt", "--constraint", "constraints.txt", "--target", "target"]
    arguments += ["--no-input", "--no-color", "--progress-bar", "off", "--disable-pip-version-check"]
    arguments += ["--keyring-provider", "disabled", "--only-binary", ":all:", "--python-version", target.python]
    arguments += ["--implementation", "cp", "--abi", f"cp{target.python.replace('.', '')}"]
    for tag in dict.fromkeys(tag.platform for tag in target.tags if tag.platform != "any"):
        arguments += ["--platform", tag]
    if policy.prereleases:
        arguments += ["--pre"]
    if policy.exclude_newer is not None:
        arguments += ["--uploaded-prior-to", policy.exclude_newer.astimezone(UTC).isoformat()]
    return arguments


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _refusal(completed: Completed, log: str, question: Question) -> NoSolution:
    """What pip said instead of an answer, where that is one; otherwise raises what it means."""
    text = _WARNING.sub("", redact(completed.stderr.decode(errors="replace"))).strip()
    if _NO_SOLUTION.search(text):
        conflict = _CONFLICT.search(redact(completed.stdout.decode(errors="replace")))
        return NoSolution(f"{text}\n{conflict[0].strip()}" if conflict else text)
    if _NO_UPLOAD_TIME in text:
        return NoSolution(text, ("exclude_newer leaves out what an index serves without upload times (PEP 700)",))
    if wheels_only_pip.REFUSAL in text:
        return NoSolution(f"A package asks for a URL that would have to be built or cloned.\n{text}")
    raise _failure(completed, text, log, question)


def _failure(completed: Completed, text: str, log: str, question: Question) -> LockstepError:
    if _INDEX_TROUBLE.search(text):
        asked = [match["url"] for match in _ASKED.finditer(log)]
        url = next((match[0] for match in URL.finditer(text)), asked[-1] if asked else question.indexes[0].url)
        cause = text.splitlines()[-1] if _TRACEBACK in text else text.removeprefix("ERROR: ")
        return unavailable(question.indexes, url, cause)
    if completed.returncode < 0:
        return EngineFailed("pip", f"it was ended by signal {-completed.returncode}", shown(completed.stderr))
    return EngineFailed("pip", f"it ended with {completed.returncode}", shown(completed.stderr))


def _answer(report: Mapping[str, Any], question: Question) -> Pylock | NoSolution:
    packages = []
    for item in report["install"]:
        metadata, origin = item["metadata"], item["download_info"]
        if item["is_direct"]:
            return NoSolution(
                f"A package asks for {metadata['name']} by a URL, {redact(origin['url'])}; only indexes are asked."
            )
        _check_markers(metadata, report["environment"], question.target)
        wheel = PackageWheel(url=origin["url"], hashes=origin["archive_info"]["hashes"])
        packages.append(
            Package(name=canonicalize_name(metadata["name"]), version=Version(metadata["version"]), wheels=[wheel])
        )
    return Pylock(lock_version=Version("1.0"), created_by="pip", packages=packages)


def _check_markers(metadata: Mapping[str, Any], here: dict[str, str], target: TargetEnvironment) -> None:
    """A class's base is a patch release 0 with no kernel named; the interpreter that ran pip has others."""
    for requirement in _requires(metadata):
        for extra in ("", *metadata.get("provides_extra", ())):
            if requirement.marker and requirement.marker.evaluate({**here, "extra": extra}) != target.holds(
                requirement.marker, extra
            ):
                reason = (
                    f"{metadata['name']} {metadata['version']} asks for `{requirement}`, and its marker holds for the "
                    f"target or for Python {here['python_full_version']} here, not for both"
                )
                raise UnsupportedTarget(target.name, reason, "with the pip engine, targets with the same markers")


def _requires(metadata: Mapping[str, Any]) -> Iterator[Requirement]:
    for text in metadata.get("requires_dist", ()):
        try:
            yield parse_requirement(text)
        except ValueError as error:
            raise EngineFailed("pip", f"it accepted a dependency that is none (PEP 508): {redact(text)}", "") from error
