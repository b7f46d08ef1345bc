"""Wheels of packages that have none: built once of their source distributions, kept, and shared within a trust domain.

What a build wants is locked, with hashes, and fetched before it begins; it runs in a sandbox, here or elsewhere
(resolver/builds), where there is no network. What comes out is taken only as what was asked for: that project, that
version, for that target.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from packaging.metadata import parse_email
from packaging.pylock import PackageSdist
from packaging.utils import (
    InvalidSdistFilename,
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from resolver.domain.builds import (
    ANY,
    BuildPolicy,
    Built,
    BuiltWheel,
    Failed,
    SdistFacts,
    Wants,
    build_id,
    trust_domain,
)
from resolver.domain.errors import BuilderUnavailable, Busy, InvalidRequest, InvalidWheel
from resolver.domain.locks import Lock, tool_facts
from resolver.domain.outcomes import BuildFailed, BuildRequired, Refusal
from resolver.domain.ports import (
    Exclusive,
    ProjectFile,
    ProjectPages,
    SdistBuilder,
    SdistBuilders,
    WheelFetcher,
    WheelReference,
)
from resolver.domain.requests import Index, Policy, ResolveRequest, public_url
from resolver.domain.requirements import parse_requirements
from resolver.domain.targets import TargetEnvironment
from resolver.scratch import needing_room
from resolver.service.fair_turns import FairTurns
from resolver.service.healing import Healing
from resolver.service.lock_book import LockBook
from resolver.service.locking import Locked, Locking
from resolver.single_flight import SingleFlight
from storage.blob_protocols import BlobStore
from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BuildRecord, Lease

_MOST_REQUIREMENTS = 200
_ROUNDS = 3
_RETRY_AFTER = 2.0
_BUILDER_RETRY_AFTER = 10.0  # seconds; a control plane that is away has been asked again already

log = structlog.get_logger(__name__)


class Building:
    """Provides wheels that were built. Builds run by turns; what failed is remembered for a while. `observe` is told
    how each ended (`built`, `failed`), and its seconds."""

    def __init__(
        self,
        metadata: MetadataStore,
        blobs: BlobStore,
        healing: Healing,
        book: LockBook,
        pages: ProjectPages,
        wheels: WheelFetcher,
        locking: Locking,
        builders: SdistBuilders,
        exclusive: Exclusive,
        turns: FairTurns,
        scratch: Path,
        *,
        refusals_for: timedelta,
        observe: Callable[[str, float], None] = lambda result, seconds: None,
    ) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._healing = healing
        self._book = book
        self._pages = pages
        self._wheels = wheels
        self._locking = locking
        self._builders = builders
        self._exclusive = exclusive
        self._turns = turns
        self._scratch = scratch
        self._refusals_for = refusals_for
        self._observe = observe
        self._flights: SingleFlight[str, BuildRecord | Failed] = SingleFlight()

    async def provide(self, wanted: BuildRequired, request: ResolveRequest) -> BuiltWheel | Refusal:
        """The wheel of what would have to be built, made now if there is none; or why it is not to be had.

        Raises what the ports and stores raise.
        """
        if request.policy.builds == "never":
            return _not_built(wanted, "builds from source are not allowed here (`builds: never`)")
        name, version = wanted.package, Version(wanted.version)
        project = await self._pages.project(name, request.indexes)
        file = _sdist(project.files, name, version, request.policy) if project else None
        if project is None or file is None:
            return _not_built(wanted, "its index has no source distribution with a SHA-256 that could be built")
        digest = Digest.from_hex(file.sha256 or "")
        url = public_url(file.url)
        sdist = WheelReference(name, str(version), file.filename, url, digest, file.size, project.index)
        if refused := _hashes_refuse(request, sdist):
            return _not_built(wanted, refused)
        made = await self._made(sdist, request)
        if isinstance(made, Failed):
            if made.forbidden:
                return _not_built(wanted, made.cause)
            return BuildFailed(name, str(version), wanted.target, made.cause, made.log, wanted.hints)
        wheel = WheelReference(name, str(version), made.filename, "", made.wheel, made.size, project.index)
        try:
            metadata = await self._wheels.metadata(wheel, None)
        except InvalidWheel:
            if await self._healing.examine(made.wheel) == "sound":
                raise
            raise Busy("building", _RETRY_AFTER, f"{made.filename} was damaged in the store") from None
        return BuiltWheel(
            name=name,
            version=version,
            filename=made.filename,
            digest=made.wheel,
            size=made.size,
            sdist=PackageSdist(
                name=file.filename,
                url=url,
                size=file.size,
                upload_time=file.upload_time,
                hashes={"sha256": digest.hex},
            ),
            build=made.id,
            target=made.target,
            metadata=metadata,
        )

    async def _made(self, sdist: WheelReference, request: ResolveRequest) -> BuildRecord | Failed:
        plan = await self._plan(sdist, request)
        question = f"build:{[*plan.builds.values()][-1]}"

        async def look() -> BuildRecord | Failed | None:
            for record in (await self._metadata.builds.get(plan.builds.values())).values():
                if await self._is_here(record):
                    return record
            failed = await self._metadata.refusals.get(question, datetime.now(UTC))
            return Failed(**failed) if failed else None

        async def lead(_: Lease | None) -> BuildRecord | Failed:
            # No fence: of two records the first stands, and both wheels are kept by their own digests.
            async with self._turns.turn(request.namespace or ""):
                started = time.monotonic()
                made = await self._make(plan, sdist, request)
            self._observe("failed" if isinstance(made, Failed) else "built", time.monotonic() - started)
            if isinstance(made, Failed) and made.forbidden and plan.unfit:
                made = replace(made, cause=f"{made.cause}; and {plan.unfit}")
            if isinstance(made, Failed):
                log.warning("build.failed", package=sdist.name, version=sdist.version, cause=made.cause)
                now = datetime.now(UTC)
                await self._metadata.refusals.put(question, asdict(made), now, now + self._refusals_for)
            return made

        found = await look()
        if found is None and (missing := await self._builders.missing(plan.target)):
            return Failed(f"it cannot be built here: {missing}", forbidden=True)
        return found or await self._flights.do(question, lambda: self._exclusive.once(question, look, lead))

    async def _plan(self, sdist: WheelReference, request: ResolveRequest) -> "_Plan":
        policy: BuildPolicy = "pure"
        places, target, unfit = [ANY], None, None
        if request.policy.builds == "native":
            unfit = await self._builders.unfit(request.target)
            if unfit is None:
                policy, places, target = "native", [ANY, request.target.name], request.target
        builder = f"{self._builders.name(target)}-{policy}"
        domain = _domain(request)
        builds = {place: build_id(domain, sdist.digest, place, builder) for place in places}
        return _Plan(policy, target, builder, builds, unfit)

    async def _is_here(self, record: BuildRecord) -> bool:
        await self._metadata.contents.claim([record.wheel])
        if await self._blobs.size(record.wheel) is not None:
            return True
        await self._healing.examine(record.wheel)  # drops the record: it is built again
        return False

    async def _make(self, plan: "_Plan", sdist: WheelReference, request: ResolveRequest) -> BuildRecord | Failed:
        await self._wheels.fetch(sdist)
        with needing_room("a build"), tempfile.TemporaryDirectory(dir=self._scratch, prefix="build-") as folder:
            async with self._blobs.local(sdist.digest) as path, self._builders.at_work(plan.target) as builder:
                try:
                    made = await self._built(builder, sdist, path, request, plan.policy, Path(folder))
                except BuilderUnavailable as unavailable:
                    if unavailable.may_pass:
                        log.warning("build.no-builder", package=sdist.name, cause=unavailable.reason)
                        raise Busy("building", _BUILDER_RETRY_AFTER, "no builder can be started now") from unavailable
                    return Failed(f"it cannot be built here: {unavailable.reason}", forbidden=True)
            if isinstance(made, Failed):
                return made
            built, requirements = made
            if wrong := _unlike(built, sdist, request.target):
                return Failed(wrong, built.log)
            place = ANY if built.pure else request.target.name
            return await self._keep(plan, place, sdist, built, requirements)

    async def _built(
        self,
        builder: SdistBuilder,
        sdist: WheelReference,
        path: Path,
        request: ResolveRequest,
        policy: BuildPolicy,
        folder: Path,
    ) -> tuple[Built, Digest] | Failed:
        facts = await builder.read(path, sdist.filename, folder / "read")
        if isinstance(facts, Failed):
            return facts
        if wrong := _another(facts, sdist):
            return Failed(wrong)
        texts = facts.requires
        for attempt in range(1, _ROUNDS + 1):
            lock = await self._lock(texts, builder.host, request)
            if isinstance(lock, Failed):
                return lock
            async with AsyncExitStack() as stack:
                wheels = {}
                for reference in _references(lock, builder.host, request.indexes):
                    await self._wheels.fetch(reference)
                    wheels[reference.filename] = await stack.enter_async_context(self._blobs.local(reference.digest))
                built = await builder.build(
                    (sdist.filename, path),
                    facts,
                    wheels,
                    folder / f"build-{attempt}",
                    policy,
                    final=attempt == _ROUNDS,
                )
            if not isinstance(built, Wants):
                return built if isinstance(built, Failed) else (built, lock.digest)
            texts = tuple(dict.fromkeys((*texts, *built.requirements)))
        return Failed("it wants ever more build requirements")

    async def _lock(self, texts: tuple[str, ...], host: TargetEnvironment, request: ResolveRequest) -> Lock | Failed:
        """What a build wants, locked for the machine that builds, and nothing of it built in its turn."""
        if len(texts) > _MOST_REQUIREMENTS:
            return Failed(f"it has more than {_MOST_REQUIREMENTS} build requirements")
        try:
            requirements = parse_requirements(texts)
        except InvalidRequest as error:
            return Failed(f"a build requirement of it cannot be read: {error.reason}")
        policy = Policy(exclude_newer=request.policy.exclude_newer, builds="never")
        asked = ResolveRequest(requirements, host, request.indexes, policy=policy, namespace=request.namespace)
        locked = await self._locking.lock(asked, ())
        if not isinstance(locked, Locked):
            said = locked.cause if isinstance(locked, BuildFailed) else locked.explanation
            if isinstance(locked, BuildRequired):
                said = f"{locked.package} {locked.version} has no wheel for {locked.target}. {said}"
            cause = f"its build requirements ({', '.join(texts)[:500]}) cannot be had: {said}"
            return Failed(cause, forbidden=True)
        await self._book.add(locked.lock)
        return locked.lock

    async def _keep(
        self, plan: "_Plan", place: str, sdist: WheelReference, built: Built, requirements: Digest
    ) -> BuildRecord | Failed:
        claims = await self._metadata.contents.claim([built.digest])
        await self._blobs.add_file(built.path, built.digest)
        wheel = WheelReference(sdist.name, sdist.version, built.filename, "", built.digest, built.size, sdist.index)
        try:
            await self._wheels.metadata(wheel, None)  # which has to be of that project and version too
        except InvalidWheel as error:
            return Failed(f"it made {built.filename}: {error.reason}", built.log)
        record = BuildRecord(
            id=plan.builds[place],
            sdist=sdist.digest,
            requirements=requirements,
            target=place,
            builder=f"{plan.builder}, {built.by}",
            wheel=built.digest,
            filename=built.filename,
            size=built.size,
            reproducible=built.reproducible,
            created=datetime.now(UTC),
            seconds=round(built.seconds, 3),
            log=built.log,
        )
        kept = await self._metadata.builds.add(record, claims)
        if kept is None:
            raise Busy("building", _RETRY_AFTER, "the wheel went away while it was written down")
        log.info("build.done", package=sdist.name, version=sdist.version, seconds=record.seconds)
        return kept

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a build may do, and its names by what its wheel may be for. Some make one wheel with a compiler at hand, and
    another one without: so the policy is part of who builds. `target`: what its builder is for, None: any platform.
    `unfit`: why it is not for the request's own target, where it might be."""

    policy: BuildPolicy
    target: TargetEnvironment | None
    builder: str
    builds: Mapping[str, str]
    unfit: str | None


def _domain(request: ResolveRequest) -> str:
    restricted = any(index.namespaces is not None for index in request.indexes)
    names = [index.name for index in request.indexes]
    return trust_domain(names, request.namespace if restricted else None, request.policy.exclude_newer)


def _sdist(files: Sequence[ProjectFile], name: NormalizedName, version: Version, policy: Policy) -> ProjectFile | None:
    """The file to build that version of: a .tar.gz (PEP 625) before a .zip."""
    found = []
    for file in files:
        newest, uploaded = policy.exclude_newer, file.upload_time
        if file.yanked is not None or file.sha256 is None or (newest and (uploaded is None or uploaded > newest)):
            continue
        try:
            if parse_sdist_filename(file.filename) == (name, version):
                found.append(file)
        except (InvalidSdistFilename, InvalidVersion):
            continue
    return min(found, key=lambda file: (file.filename.endswith(".zip"), file.filename), default=None)


def _hashes_refuse(request: ResolveRequest, sdist: WheelReference) -> str | None:
    """Why the hashes that the request gives forbid to build the sdist; None where they do not."""
    for line in (*request.requirements, *request.constraints):
        if line.name == sdist.name and line.hashes and f"sha256:{sdist.digest.hex}" not in line.hashes:
            return f"its source distribution {sdist.filename} has none of the hashes that are given in line {line.line}"
    return None


def _another(facts: SdistFacts, sdist: WheelReference) -> str | None:
    """Why the sdist is not what its file name says, by its PKG-INFO, where it has one; None where it is."""
    raw, _ = parse_email(facts.metadata)
    name, version = raw.get("name"), raw.get("version")
    try:
        same = (name is None or canonicalize_name(name) == sdist.name) and (
            version is None or Version(version) == Version(sdist.version)
        )
    except InvalidVersion:
        same = False
    return None if same else f"its PKG-INFO says {str(name)[:80]} {str(version)[:80]}"


def _unlike(built: Built, sdist: WheelReference, target: TargetEnvironment) -> str | None:
    """Why the wheel is not what was asked for; None where it is."""
    name, version, _, _ = parse_wheel_filename(built.filename)
    if name != sdist.name or version != Version(sdist.version):
        return f"it made {built.filename}, which is not {sdist.name} {sdist.version}"
    if built.tags.isdisjoint(target.tags):
        return f"it made {built.filename}, which {target} cannot install"
    if built.glibc is not None and (target.libc != "glibc" or built.glibc > target.rung):
        newest = ".".join(map(str, built.glibc))
        return f"it made {built.filename}, which needs glibc {newest}, and {target} may have an older one"
    return None


def _references(lock: Lock, target: TargetEnvironment, indexes: Sequence[Index]) -> list[WheelReference]:
    by_name = {index.name: index for index in indexes}
    return [
        WheelReference.locked(package, wheel, by_name[tool_facts(package)["index"]])
        for package, wheel in lock.select(target)
    ]


def _not_built(wanted: BuildRequired, why: str) -> BuildRequired:
    return replace(wanted, hints=(why, *wanted.hints))
