"""What the service would say of a few locks, in the API's own schemas."""

from datetime import UTC, datetime, timedelta

from resolver.api import schemas

NEW = "sha256:" + "ab" * 32
OLD = "sha256:" + "ac" * 32
NOON = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
# A file's summary may be anything: this would clear a terminal.
CLEARS_SCREEN = "MIT\x1b[2J"


def lock_item(digest: str, requirements: list[str], age: int = 0) -> schemas.LockItem:
    return schemas.LockItem(
        digest=digest,
        created=NOON - timedelta(hours=age),
        requirements=requirements,
        package_count=5,
        targets=["cp312-musllinux_1_2_x86_64", "cp312-musllinux_1_2_aarch64"],
        pins=[schemas.PinName(namespace="shop", workload="checkout", revision="r1")],
        pin_count=1,
    )


def lock_detail() -> schemas.LockDetail:
    def package(name: str, version: str, needs: list[str], licence: str | None) -> schemas.PackageDetail:
        wheel = schemas.WheelDetail(
            filename=f"{name}-{version}-py3-none-any.whl",
            url=f"https://packages.example.com/{name}.whl",
            hash="sha256:" + "1" * 64,
            size=64_900,
            upload_time=NOON,
        )
        return schemas.PackageDetail(
            name=name,
            version=version,
            marker=None,
            index="https://packages.example.com/simple",
            licence=licence,
            extras=[],
            dependencies=needs,
            wheels=[wheel],
        )

    return schemas.LockDetail(
        **lock_item(NEW, ["requests>=2"]).model_dump(),
        constraints=["urllib3<3"],
        packages=[
            package("urllib3", "2.5.0", [], CLEARS_SCREEN),
            package("requests", "2.34.2", ["certifi", "urllib3"], "Apache-2.0"),
        ],
    )


def resolve_answer(
    lock: str, platform: str = "musllinux_1_2_x86_64", warnings: list[schemas.WarningAnswer] | None = None
) -> schemas.ResolveAnswer:
    bundle = "sha256:" + "b" * 64
    return schemas.ResolveAnswer(
        lock=schemas.LockAnswer(
            digest=lock,
            packages=[
                schemas.LockedPackage(
                    name="requests", version="2.34.2", wheel="requests-2.34.2-py3-none-any.whl", hash="sha256:1"
                )
            ],
        ),
        bundle=schemas.BundleAnswer(
            digest=bundle,
            media_type="application/vnd.oci.image.manifest.v1+json",
            size=1,
            unpacked_size=2,
            reference=f"bundles@{bundle}",
        ),
        outcome="resolved",
        pin=None,
        target=schemas.TargetAnswer(python="3.12", platform=platform),
        warnings=warnings or [],
    )


def pin(namespace: str, workload: str, revision: str, age: int, stale: bool = False) -> schemas.PinAnswer:
    return schemas.PinAnswer(
        namespace=namespace,
        workload=workload,
        revision=revision,
        lock=NEW,
        created=NOON - timedelta(hours=age),
        stale=stale,
        extensions={"cp312-manylinux_2_28_aarch64": OLD} if stale else {},
    )
