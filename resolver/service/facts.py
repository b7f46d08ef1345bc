"""What package indexes and METADATA say of the packages that an engine picked."""

import asyncio
from collections.abc import Iterable, Mapping

from packaging.pylock import Package, PackageWheel, Pylock
from packaging.utils import NormalizedName

from resolver.domain.errors import IndexUnavailable
from resolver.domain.inspection import activated
from resolver.domain.locks import PackageFacts
from resolver.domain.metadata import Declared, declared
from resolver.domain.outcomes import Notice
from resolver.domain.ports import Project, ProjectPages, WheelFetcher, WheelReference
from resolver.domain.requests import Index, Question
from resolver.domain.targets import TargetEnvironment

Picks = Mapping[TargetEnvironment, Pylock]
Pages = Mapping[NormalizedName, Project]


async def read_pages(pages: ProjectPages, picks: Iterable[Pylock], indexes: tuple[Index, ...]) -> Pages:
    """The page of every package that an engine picked."""
    names = sorted({package.name for pylock in picks for package in pylock.packages})
    found = await asyncio.gather(*(pages.project(name, indexes) for name in names))
    return {name: project for name, project in zip(names, found, strict=True) if project is not None}


async def package_facts(
    wheels: WheelFetcher, question: Question, picks: Picks, pages: Pages
) -> tuple[dict[NormalizedName, PackageFacts], list[Notice]]:
    """What a lock says of each package beside its wheels, and a notice where METADATA and engine disagree.

    Raises what the wheel fetcher raises.
    """
    chosen = _representatives(picks)
    texts = await asyncio.gather(*(_declared(wheels, package, wheel, pages) for package, wheel in chosen.values()))
    said = dict(zip(chosen, texts, strict=True))
    graphs = [
        activated(
            [line.requirement for line in question.requirements],
            {package.name: said[package.name].requires for package in pylock.packages},
            target,
        )
        for target, pylock in picks.items()
    ]
    facts = {
        name: PackageFacts(
            index=pages[name].index,
            requires=declaration.requires,
            licence=declaration.licence,
            extras=tuple(sorted({extra for graph in graphs for extra in graph.extras.get(name, ())})),
            dependencies=tuple(sorted({other for graph in graphs for other in graph.dependencies.get(name, ())})),
        )
        for name, declaration in said.items()
    }
    missing = sorted({name for graph in graphs for name in graph.missing})
    return facts, [
        Notice("metadata-disagrees", f"METADATA asks for {name}, which the engine did not lock", name)
        for name in missing
    ]


async def _declared(wheels: WheelFetcher, package: Package, wheel: PackageWheel, pages: Pages) -> Declared:
    project = pages.get(package.name)
    if project is None:
        raise IndexUnavailable("all", package.name, "no index has the project that the engine just locked")
    reference = WheelReference.locked(package, wheel, project.index)
    published = next((file for file in project.files if file.filename == wheel.filename), None)
    return declared(await wheels.metadata(reference, published))


def yanked(picks: Picks, pages: Pages) -> list[Notice]:
    """A notice for every wheel taken that its index has yanked (PEP 592)."""
    taken = {
        wheel.filename: package
        for pylock in picks.values()
        for package in pylock.packages
        for wheel in package.wheels or ()
    }
    return [
        Notice(
            "yanked",
            f"{file.filename} was yanked from index {project.index.name}" + (f": {file.yanked}" if file.yanked else ""),
            project.name,
        )
        for project in pages.values()
        for file in project.files
        if file.yanked is not None and file.filename in taken
    ]


def sized(pylock: Pylock, pages: Pages) -> Pylock:
    """The same with the size and upload time of each wheel, where the index says them (PEP 700)."""
    return Pylock(
        lock_version=pylock.lock_version,
        created_by=pylock.created_by,
        packages=[
            Package(
                name=package.name,
                version=package.version,
                wheels=[_sized_wheel(wheel, pages[package.name]) for wheel in package.wheels or ()],
            )
            for package in pylock.packages
        ],
    )


def _sized_wheel(wheel: PackageWheel, project: Project) -> PackageWheel:
    if wheel.url is None:
        return wheel  # built here
    published = next((file for file in project.files if file.filename == wheel.filename), None)
    return PackageWheel(
        name=wheel.filename,
        url=wheel.url,
        hashes=wheel.hashes,
        size=wheel.size or (published.size if published else None),
        upload_time=wheel.upload_time or (published.upload_time if published else None),
    )


def _representatives(picks: Picks) -> dict[NormalizedName, tuple[Package, PackageWheel]]:
    # One wheel speaks for a package: that of the first target by name, so that the lock does not depend on who asked.
    chosen: dict[NormalizedName, tuple[Package, PackageWheel]] = {}
    for target in sorted(picks, key=lambda target: target.name):
        for package in picks[target].packages:
            if package.wheels:
                chosen.setdefault(package.name, (package, package.wheels[0]))
    return chosen
