"""From what the use cases answer to the JSON of schemas.py."""

from collections.abc import Iterator, Mapping

from packaging.pylock import Package
from packaging.utils import canonicalize_name

from resolver.api import schemas
from resolver.domain.inspection import LockDiff, Paths
from resolver.domain.locks import Lock, tool_facts
from resolver.service.inspect import Described
from resolver.service.resolve import Answer
from storage.content import MANIFEST
from storage.records import BuildRecord, PinName, PinRecord, WorkloadRecord


def answer(found: Answer) -> schemas.ResolveAnswer:
    """The answer to a resolve request."""
    return schemas.ResolveAnswer(
        lock=schemas.LockAnswer(
            digest=found.lock.digest,
            packages=[
                schemas.LockedPackage(
                    name=package.name,
                    version=str(package.version),
                    wheel=wheel.filename,
                    hash=f"sha256:{wheel.hashes['sha256']}",
                )
                for package, wheel in found.lock.select(found.target)
            ],
        ),
        bundle=schemas.BundleAnswer(
            digest=found.bundle.digest,
            media_type=MANIFEST,
            size=found.bundle.size,
            unpacked_size=found.bundle.unpacked_size,
            reference=f"bundles@{found.bundle.digest}",
        ),
        outcome=found.outcome,
        pin=pin_name(found.pin) if found.pin else None,
        target=schemas.TargetAnswer(python=found.target.python, platform=found.target.platform),
        warnings=[
            schemas.WarningAnswer(code=notice.code, message=notice.message, package=notice.package)
            for notice in found.notices
        ],
    )


def pin_name(pin: PinRecord | PinName) -> schemas.PinName:
    """Which pin."""
    return schemas.PinName(namespace=pin.namespace, workload=pin.workload, revision=pin.revision)


def pin(record: PinRecord) -> schemas.PinAnswer:
    """A pin, whole."""
    return schemas.PinAnswer(
        namespace=record.namespace,
        workload=record.workload,
        revision=record.revision,
        lock=record.lock,
        created=record.created,
        stale=record.stale,
        extensions=dict(record.extensions),
    )


def lock_item(described: Described) -> schemas.LockItem:
    """A lock in a list."""
    return schemas.LockItem(
        digest=described.lock.digest,
        created=described.lock.created,
        requirements=[*described.lock.requirements],
        package_count=described.lock.package_count,
        targets=[*described.lock.targets],
        pins=[pin_name(name) for name in described.pins.newest],
        pin_count=described.pins.count,
    )


def lock_detail(described: Described, lock: Lock, builds: Mapping[str, BuildRecord]) -> schemas.LockDetail:
    """A lock, whole."""
    return schemas.LockDetail(
        **lock_item(described).model_dump(),
        constraints=[*lock.constraints],
        packages=[_package(package, builds) for package in lock.pylock.packages],
    )


def diff(a: str, b: str, found: LockDiff) -> schemas.LockDiff:
    """What changes between two locks."""
    return schemas.LockDiff(
        a=a,
        b=b,
        added=[schemas.NamedVersion(name=name, version=str(version)) for name, version in found.added],
        removed=[schemas.NamedVersion(name=name, version=str(version)) for name, version in found.removed],
        changed=[schemas.Change(name=name, **{"from": str(old), "to": str(new)}) for name, old, new in found.changed],
    )


def why(lock: str, package: str, found: tuple[str, Paths]) -> schemas.WhyAnswer:
    """Why a package is there."""
    version, paths = found
    return schemas.WhyAnswer(
        lock=lock,
        package=canonicalize_name(package),
        version=version,
        paths=[
            [schemas.WhyStep(name=step.name, requirement=step.requirement) for step in path] for path in paths.paths
        ],
        truncated=paths.truncated,
    )


def workload(record: WorkloadRecord) -> schemas.WorkloadAnswer:
    """A workload, as its operator left it."""
    return schemas.WorkloadAnswer(
        namespace=record.namespace,
        workload=record.workload,
        refreshes=record.refreshes,
        refreshed_at=record.refreshed_at,
        held_lock=record.hold.lock if record.hold else None,
    )


def _package(package: Package, builds: Mapping[str, BuildRecord]) -> schemas.PackageDetail:
    facts = tool_facts(package)
    return schemas.PackageDetail(
        name=package.name,
        version=str(package.version),
        marker=str(package.marker) if package.marker else None,
        index=package.index,
        licence=facts.get("licence"),
        extras=[*facts.get("extras", ())],
        dependencies=[str(dependency["name"]) for dependency in package.dependencies or ()],
        wheels=[
            schemas.WheelDetail(
                filename=wheel.filename,
                url=wheel.url or "",
                hash=f"sha256:{wheel.hashes['sha256']}",
                size=wheel.size,
                upload_time=wheel.upload_time,
            )
            for wheel in package.wheels or ()
        ],
        builds=[*_builds(package, builds)],
    )


def _builds(package: Package, builds: Mapping[str, BuildRecord]) -> Iterator[schemas.BuildDetail]:
    if package.sdist is None:
        return
    for built in tool_facts(package).get("built", ()):
        digest = f"sha256:{built['sha256']}"
        record = builds.get(built["build"])
        if record is not None and record.wheel != digest:
            record = None  # it was lost, and built again; this is not the build that the lock has
        yield schemas.BuildDetail(
            wheel=built["wheel"],
            hash=digest,
            size=built["size"],
            target=built["target"],
            sdist=package.sdist.filename,
            sdist_url=package.sdist.url or "",
            sdist_hash=f"sha256:{package.sdist.hashes['sha256']}",
            requirements=record.requirements if record else None,
            builder=record.builder if record else None,
            reproducible=record.reproducible if record else None,
            created=record.created if record else None,
            seconds=record.seconds if record else None,
            log=record.log if record else None,
        )
