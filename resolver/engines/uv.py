"""The uv engine: `uv pip compile`, wheels only, read as a PEP 751 lock."""

import asyncio
import re
import sys
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uv
from packaging.pylock import Pylock, PylockValidationError

from resolver.domain.errors import EngineFailed, InvalidRequest, LockstepError
from resolver.domain.outcomes import NoSolution
from resolver.domain.redaction import redact
from resolver.domain.requests import Index, Question
from resolver.domain.targets import TargetEnvironment
from resolver.engines import built
from resolver.engines.cache import LIMIT, EngineCache
from resolver.engines.files import requirement_files
from resolver.engines.indexes import URL, unavailable
from resolver.engines.narrowing import one_wheel_each
from resolver.engines.process import Completed, run, scratch, shown

_ANY = TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64")
_OUTPUT_LIMIT = 64 * 1024 * 1024

# uv takes one musl alone, 1.2; what it finds for an older one is narrowed to it (narrowing.py).
_PLATFORMS = {"glibc": "{machine}-manylinux_{major}_{minor}", "musl": "{machine}-unknown-linux-musl"}

# Exit codes do not tell: uv 0.13 ends with 1 for an index's garbage too. Its words do.
_NO_SOLUTION = "No solution found"
_NOT_LET_IN = re.compile(r"An index (?:URL )?\((?P<url>[^)\s]+)\) (?:could not be queried|returned a \d+).*")
_URL_DEPENDENCY = "was included as a URL dependency"
_WARNING = re.compile(r"^warning: .*\n?", re.MULTILINE)
_HINT = re.compile(r"^(?P<indent>\s*)hint: (?P<text>.*(?:\n(?P=indent)\s+\S.*)*)", re.MULTILINE)
_NO_UPLOAD_TIME = re.compile(r"`(?P<file>[^`]+)` is missing an upload date")


class UvLocker:
    """Locks with uv, for every target class.

    `cache` is uv's cache folder, shared by all runs, of about `cache_limit` bytes; `timeout` (seconds) bounds a whole
    lock, `memory` (bytes) each run of it, `http_timeout` (seconds) and `retries` every request, so that a silent index
    is told from a slow resolve. Runs have their folders in `workspace` (absent: where the system keeps temporary
    files).
    """

    name = "uv"

    def __init__(
        self,
        cache: Path,
        *,
        cache_limit: int = LIMIT,
        timeout: float = 300,
        memory: int = 4 * 1024**3,
        http_timeout: int = 15,
        retries: int = 3,
        executable: Path | None = None,
        workspace: Path | None = None,
    ) -> None:
        self._cache = EngineCache(cache, cache_limit)
        self._timeout = timeout
        self._memory = memory
        self._http_timeout = http_timeout
        self._retries = retries
        self.executable = executable or Path(uv.find_uv_bin())
        self._workspace = workspace

    async def lock(self, question: Question) -> Pylock | NoSolution:
        """Resolve: see `Locker.lock`; and raises InvalidRequest for a line that no index could be asked for."""
        return await one_wheel_each(self._ask, question, engine=self.name, timeout=self._timeout)

    async def prepare(self, indexes: Sequence[Index]) -> None:
        """Have uv look at the interpreter that it resolves beside: it remembers that in its cache, which takes longer
        than a small lock. The cache is that of requests which name no indexes; none is asked. Raises as `lock` does."""
        if everyones := tuple(index for index in indexes if index.open_to(None)):
            await self._ask(Question((), (), _ANY, everyones))

    async def _ask(self, question: Question) -> Pylock | NoSolution:
        files = requirement_files(question)
        async with scratch(self._workspace) as folder, self._cache.part(question.indexes) as cache:
            await asyncio.to_thread((folder / "requirements.txt").write_text, files.requirements)
            arguments = _arguments(question)
            if files.constraints:
                await asyncio.to_thread((folder / "constraints.txt").write_text, files.constraints)
                arguments += ["--constraints", "constraints.txt"]
            arguments += await asyncio.to_thread(built.lay_out, question.built_here, folder)
            completed = await run(
                [self.executable, *arguments],
                engine=self.name,
                env=self._environment(question.indexes, cache),
                cwd=folder,
                timeout=self._timeout,
                memory=self._memory,
                output_limit=_OUTPUT_LIMIT,
            )
        return _lock(completed) if completed.returncode == 0 else _refusal(completed, question)

    def _environment(self, indexes: Sequence[Index], cache: Path) -> dict[str, str]:
        """The indexes, in the environment because there alone a credential shows up in no list of processes.

        uv asks those of UV_INDEX first, in their order, and the default index last.
        """
        if not indexes:
            raise InvalidRequest("no index is given", field="indexes")
        *first, last = [index.url.replace(" ", "%20") for index in indexes]
        return {
            "UV_CACHE_DIR": str(cache),
            "UV_HTTP_TIMEOUT": str(self._http_timeout),
            "UV_HTTP_CONNECT_TIMEOUT": str(self._http_timeout),
            "UV_HTTP_RETRIES": str(self._retries),
            "UV_DEFAULT_INDEX": last,
            **({"UV_INDEX": " ".join(first)} if first else {}),
        }


def platform(target: TargetEnvironment) -> str:
    """The target class as uv's `--python-platform` has it."""
    major, minor = target.rung
    return _PLATFORMS[target.libc].format(machine=target.machine, major=major, minor=minor)


def _arguments(question: Question) -> list[str]:
    policy = question.policy
    arguments = ["pip", "compile", "requirements.txt", "--format", "pylock.toml", "--no-header", "--no-annotate"]
    arguments += ["--no-progress", "--color", "never"]
    arguments += ["--no-config", "--only-binary", ":all:", "--index-strategy", "first-index"]
    arguments += ["--no-python-downloads", "--python", sys.executable]
    arguments += ["--python-version", question.target.python, "--python-platform", platform(question.target)]
    if policy.prereleases:
        arguments += ["--prerelease", "allow"]
    if policy.exclude_newer is not None:
        arguments += ["--exclude-newer", _timestamp(policy.exclude_newer)]
    return arguments


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _lock(completed: Completed) -> Pylock:
    try:
        return Pylock.from_dict(tomllib.loads(completed.stdout.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, PylockValidationError) as error:
        raise EngineFailed("uv", f"its answer is no lock (PEP 751): {redact(str(error))}", "") from error


def _refusal(completed: Completed, question: Question) -> NoSolution:
    """What uv said instead of a lock, where that is an answer; otherwise raises what it means."""
    printed = redact(completed.stderr.decode(errors="replace"))
    text = _WARNING.sub("", printed).strip()
    if match := _NOT_LET_IN.search(text):
        # Without an answer from each index in its turn, "not found" would prove nothing.
        raise unavailable(question.indexes, match["url"], match[0])
    if _NO_SOLUTION in text:
        return NoSolution(text, (*_hints(text), *_without_upload_times(printed)))
    if _URL_DEPENDENCY in text:
        return NoSolution(text, _hints(text))
    raise _failure(completed, text, question)


def _failure(completed: Completed, text: str, question: Question) -> LockstepError:
    if url := URL.search(text):  # an error that names a URL is about what came from there, or did not
        return unavailable(question.indexes, url[0], text.removeprefix("error: "))
    if completed.returncode < 0:
        return EngineFailed("uv", f"it was ended by signal {-completed.returncode}", shown(completed.stderr))
    return EngineFailed("uv", f"it ended with {completed.returncode}", shown(completed.stderr))


def _hints(text: str) -> tuple[str, ...]:
    return tuple(" ".join(match["text"].split()) for match in _HINT.finditer(text))


def _without_upload_times(text: str) -> tuple[str, ...]:
    """PEP 700's upload times are optional; where they are missing, uv takes every file for too new."""
    files = [match["file"] for match in _NO_UPLOAD_TIME.finditer(text)]
    if not files:
        return ()
    return (f"exclude_newer leaves out what an index serves without upload times (PEP 700), as {files[0]} here",)
