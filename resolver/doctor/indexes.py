"""Package indexes: whether each answers, and what its pages tell."""

from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
from packaging.utils import NormalizedName

from resolver.doctor import clock
from resolver.doctor.findings import Finding, note, well, wrong
from resolver.domain.errors import IndexUnavailable
from resolver.domain.ports import Project
from resolver.domain.requests import Index
from resolver.upstream.pages import SimplePages
from resolver.upstream.transfer import Retries, index_client

CHECK = "index"

_JSON = "application/vnd.pypi.simple.v1+json"
_ONCE = Retries(attempts=1)


async def check_index(index: Index, project: NormalizedName, version: str, seconds: float) -> list[Finding]:
    """Ask the index for the page of a project, as the service would, and look at what is on it. It has `seconds` for
    all of that."""
    answers: list[tuple[httpx.Response, datetime]] = []

    async def seen(answer: httpx.Response) -> None:
        answers.append((answer, datetime.now(UTC)))

    async with index_client(version, seconds) as http:
        http.event_hooks = {"response": [seen]}
        pages = SimplePages(http, retries=_ONCE, seconds=seconds)
        try:
            found = await pages.reread(project, index)
        except IndexUnavailable as failure:
            return [_unusable(index, failure, answers), *_clock(index, answers)]
        finally:
            await pages.close()
    media_type = answers[-1][0].headers.get("Content-Type", "").partition(";")[0].strip()
    return [*_told(index, project, found, media_type), *_clock(index, answers)]


def _unusable(index: Index, failure: IndexUnavailable, answers: Sequence[tuple[httpx.Response, datetime]]) -> Finding:
    way_out = "its URL; the way there: name service, egress (networkPolicy.https), proxy, the CA (trustedCertificates)"
    if answers and answers[-1][0].status_code in (401, 403):
        way_out = "the credentials in its URL (index.secret, configSecret)"
    return wrong(CHECK, index.name, f"cannot be used: {failure}", way_out)


def _clock(index: Index, answers: Sequence[tuple[httpx.Response, datetime]]) -> list[Finding]:
    return clock.of_answer(f"index {index.name}", *answers[-1]) if answers else []


def _told(index: Index, name: NormalizedName, project: Project | None, media_type: str) -> list[Finding]:
    if project is None:
        other = "--project NAME names one that it has"
        return [note(CHECK, index.name, f"answers, but has no project {name}: what its pages tell was not seen", other)]
    found = []
    wheels = [file for file in project.files if file.filename.endswith(".whl")]
    bare = sum(file.sha256 is None for file in wheels)
    if bare:
        told = f"{bare} of {len(wheels)} wheels of {name} have no SHA-256: what has none cannot be locked (PEP 751)"
        found.append(
            wrong(CHECK, index.name, told, "have it serve hashes (PEP 503), or put a mirror that does in front")
        )
    if media_type != _JSON:
        told = f"its pages are HTML ({media_type or 'unnamed'}), not JSON (PEP 691)"
        found.append(note(CHECK, index.name, told, "a newer version of the index; JSON is read faster and tells more"))
    if wheels and not any(file.upload_time for file in wheels):
        told = "no upload times (PEP 700): `exclude_newer` takes every file for unavailable"
        found.append(
            note(CHECK, index.name, told, "leave `exclude_newer` out of requests, or use a mirror that has them")
        )
    if wheels and not any(file.metadata_hash is not None for file in wheels):
        told = "no metadata beside wheels (PEP 658, 714): wheels are fetched to be looked into"
        found.append(note(CHECK, index.name, told, "a newer version of the index; cold resolves are slow without"))
    if not found:
        told = f"{len(project.files)} files of {name}, as JSON, with hashes, upload times and metadata"
        found.append(well(CHECK, index.name, told))
    return found
