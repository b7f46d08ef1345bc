"""The real package index, which is the engines' own default, and the real sets of requirements beside the project."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.plain_uv import PlainUv
from tests.support.still_index import still_index

SETS = Path(__file__).resolve().parents[3] / "shared" / "requirements"
SET_NAMES = sorted(path.stem for path in SETS.glob("*.txt"))

# Whatever was released less than an hour ago is left out, for Lockstep and for whoever judges it: a release between two
# questions then makes no difference.
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


@pytest.fixture(scope="session")
def real_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the real index, held still. Skips where it cannot be reached."""
    with still_index() as url:
        uv = PlainUv(tmp_path_factory.mktemp("uv"), _options(url), seconds=_SECONDS)
        try:
            answers = uv.run(["pip", "compile", "-"], _SMALL).returncode == 0
        except subprocess.TimeoutExpired:
            answers = False
        if not answers:
            pytest.skip("the real package index cannot be reached (or tells no upload times)")
        yield url


def real_uv(index_url: str, folder: Path) -> PlainUv:
    """uv on the real index, which sees what is older than MOMENT."""
    return PlainUv(folder, _options(index_url))


def _options(index_url: str) -> list[str]:
    return ["--default-index", index_url, "--exclude-newer", MOMENT]
