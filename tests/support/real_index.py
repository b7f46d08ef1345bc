"""The real package index, which is the engines' own default, and the real sets of requirements beside the project."""

import functools
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.plain_uv import PlainUv

SETS = Path(__file__).resolve().parents[3] / "shared" / "requirements"
SET_NAMES = sorted(path.stem for path in SETS.glob("*.txt"))

# Whatever was released less than an hour ago is left out, for Lockstep and for whoever judges it: caches of pages that
# differ by minutes then make no difference, nor does a release between two questions.
MOMENT = (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0).isoformat().replace("+00:00", "Z")

_SMALL = "idna>=3"
_SECONDS = 60


def requirements(name: str) -> str:
    """The text of one of the real sets."""
    return (SETS / f"{name}.txt").read_text()


def each_set(*only: str) -> pytest.MarkDecorator:
    """Runs a test for every real set (of these), as `name`; where they are absent, skips it."""
    names = [name for name in SET_NAMES if not only or name in only]
    absent = pytest.param("none", marks=pytest.mark.skip(reason="no sets of requirements beside the project"))
    return pytest.mark.parametrize("name", names or [absent])


@functools.cache
def real_index_reachable() -> bool:
    """Whether the real index answers the ordinary client, with the upload times that `MOMENT` needs."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = PlainUv(Path(folder), ["--exclude-newer", MOMENT], seconds=_SECONDS).run(
                ["pip", "compile", "-"], _SMALL
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


@pytest.fixture(scope="session")
def real_index() -> None:
    """Skips where the real index cannot be reached."""
    if not real_index_reachable():
        pytest.skip("the real package index cannot be reached (or tells no upload times)")
