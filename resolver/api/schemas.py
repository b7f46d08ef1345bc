"""The JSON that goes in and out, as contract.md fixes it. Unknown fields are refused: no misspelt one is ignored."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?$")]
Short = Annotated[str, StringConstraints(max_length=256)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlatformTarget(_In):
    """A Python version and a platform tag."""

    python: Short = Field(examples=["3.12"])
    platform: Short = Field(examples=["musllinux_1_2_x86_64"])


class ReportedTarget(_In):
    """What an interpreter reports of itself: PEP 508 names, and its libc."""

    markers: dict[Short, Short] = Field(max_length=32)
    libc: Short = Field(examples=["musl 1.2"])


class WorkloadName(_In):
    """Who asks. Without a revision, the workload has one revision a refresh."""

    namespace: Name | None = Field(None, description="absent: the one that the token is for")
    name: Name
    revision: Revision | None = None


class ResolveBody(_In):
    """A set of requirements, and the interpreter that they are for."""

    requirements: str | list[str] = Field(description="requirements.txt text, or one requirement an item")
    constraints: str | list[str] | None = None
    target: PlatformTarget | ReportedTarget
    workload: WorkloadName | None = Field(None, description="makes a pin")
    indexes: list[Short] | None = Field(
        None, description="names that the operator configured, never URLs", max_length=32
    )
    exclude_newer: datetime | None = None
    prereleases: bool = False
    wait: float = Field(60, ge=0, description="seconds until an operation is answered instead")


class HoldBody(_In):
    """The lock that new revisions take until the next refresh."""

    lock: str


FallbackReason = Literal[
    "refused", "unavailable", "cannot-write", "mismatch", "not-allowed", "failed",  # a client says so
    "private-index", "killed", "no-client", "timed-out",  # what should have run one does
]  # fmt: skip


class FallbackBody(_In):
    """A Pod that starts without its bundle. `detail` is for people, and is logged."""

    reason: FallbackReason
    detail: str = Field("", max_length=1000)
    namespace: Name | None = None
    workload: Name | None = None


class FallbackAnswer(BaseModel):
    """It is counted, under this reason."""

    counted: FallbackReason


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    retryable: bool
    request_id: str
    hints: list[str] = []


class OciError(BaseModel):
    """One error as an OCI client reads it; `detail` has the facts of the problem."""

    code: str
    message: str
    detail: dict[str, Any]


class OciErrors(BaseModel):
    """OCI distribution-spec, "Error Codes"."""

    errors: list[OciError]


class LockedPackage(BaseModel):
    """One package of an answer."""

    name: str
    version: str
    wheel: str
    hash: str


class LockAnswer(BaseModel):
    """The lock, and what of it the asking target gets."""

    digest: str
    packages: list[LockedPackage]


class BundleAnswer(BaseModel):
    """The bundle. `size`: bytes to download (tar+zstd); `unpacked_size`: bytes to write."""

    digest: str
    media_type: str
    size: int
    unpacked_size: int
    reference: str


class PinName(BaseModel):
    """The pin that the answer comes from."""

    namespace: str
    workload: str
    revision: str


class TargetAnswer(BaseModel):
    """The target class that the request was snapped to."""

    python: str
    platform: str


class WarningAnswer(BaseModel):
    """Something that a person wants to hear."""

    code: str
    message: str
    package: str | None = None


class ResolveAnswer(BaseModel):
    """A lock, a bundle, and how they came about."""

    lock: LockAnswer
    bundle: BundleAnswer
    outcome: Literal["pinned", "cached", "resolved", "stale"]
    pin: PinName | None
    target: TargetAnswer
    warnings: list[WarningAnswer]


class OperationAnswer(BaseModel):
    """Work under way."""

    id: str
    kind: str
    state: Literal["running"]
    progress: dict[str, Any]


class PinAnswer(BaseModel):
    """Who runs what."""

    namespace: str
    workload: str
    revision: str
    lock: str
    created: datetime
    stale: bool
    extensions: dict[str, str] = Field(description="locks for further target classes, by class")


class LockItem(BaseModel):
    """A lock as the list shows it."""

    digest: str
    created: datetime
    requirements: list[str]
    package_count: int
    targets: list[str]
    pins: list[PinName] = Field(description="the newest few that hold it; `GET /v1/pins?lock=` has them all")
    pin_count: int = Field(description="how many hold it; 1000: that many or more")


class LockPage(BaseModel):
    """A part of the list of locks; `cursor` asks for the next, null: this was the last."""

    items: list[LockItem]
    cursor: str | None


class PinPage(BaseModel):
    """A part of the list of pins."""

    items: list[PinAnswer]
    cursor: str | None


class WheelDetail(BaseModel):
    """A wheel of a lock."""

    filename: str
    url: str
    hash: str
    size: int | None
    upload_time: datetime | None


class BuildDetail(BaseModel):
    """A wheel that was built here of a package's source distribution. What is null went with the build's record."""

    wheel: str
    hash: str
    size: int
    target: str = Field(description="the target class that it is for, or `any`")
    sdist: str
    sdist_url: str
    sdist_hash: str
    requirements: str | None = Field(description="the lock of what it was built with")
    builder: str | None
    reproducible: bool | None = Field(description="it was built twice, and both wheels were equal")
    created: datetime | None
    seconds: float | None
    log: str | None = Field(description="the end of what the build printed")


class PackageDetail(BaseModel):
    """A package of a lock."""

    name: str
    version: str
    marker: str | None
    index: str | None
    licence: str | None
    extras: list[str]
    dependencies: list[str]
    wheels: list[WheelDetail]
    builds: list[BuildDetail] = []


class LockDetail(LockItem):
    """A lock, whole."""

    constraints: list[str]
    packages: list[PackageDetail]


class Change(BaseModel):
    """A package that two locks have at different versions."""

    model_config = ConfigDict(populate_by_name=True)

    name: str
    from_: str = Field(alias="from")
    to: str


class NamedVersion(BaseModel):
    """A package that one of two locks has."""

    name: str
    version: str


class LockDiff(BaseModel):
    """From lock `a` to lock `b`."""

    a: str
    b: str
    added: list[NamedVersion]
    removed: list[NamedVersion]
    changed: list[Change]


class WhyStep(BaseModel):
    """One step of a path: the package, and the requirement that asked for it."""

    name: str
    requirement: str


class WhyAnswer(BaseModel):
    """Every path from a requirement to a package; `truncated` where there are more than are shown."""

    lock: str
    package: str
    version: str
    paths: list[list[WhyStep]]
    truncated: bool


class WorkloadAnswer(BaseModel):
    """A workload, as its operator left it."""

    namespace: str
    workload: str
    refreshes: int
    refreshed_at: datetime | None
    held_lock: str | None


class Readiness(BaseModel):
    """Whether this process can answer; `degraded` names what all replicas share and miss."""

    status: Literal["ready", "degraded", "stopping"]
    degraded: list[str]
