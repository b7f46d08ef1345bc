"""The JSON of warming."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from resolver.api.schemas import Name, PlatformTarget, Problem, Short, TargetAnswer


class WarmEntry(BaseModel, extra="forbid"):
    """A set of requirements, and the targets that it is to be hot for."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(description="for people")
    requirements: str | list[str] = Field(description="requirements.txt text, or one requirement an item")
    constraints: str | list[str] | None = None
    targets: list[PlatformTarget] = Field(min_length=1, max_length=32)
    indexes: list[Short] | None = Field(
        None, description="names that the operator configured, never URLs", max_length=32
    )
    namespace: Name | None = Field(None, description="whose indexes may be used, where some are not open to all")
    exclude_newer: datetime | None = None
    prereleases: bool = False


class WarmRecent(BaseModel, extra="forbid"):
    """And what was asked for in the last `days` days: the most often asked first, `limit` requests of it at most."""

    days: float = Field(gt=0, le=90)
    limit: int = Field(ge=1, le=1000)


class WarmBody(BaseModel, extra="forbid"):
    """What is to be hot."""

    entries: list[WarmEntry] = Field([], max_length=1000)
    recent: WarmRecent | None = None
    wait: float = Field(0, ge=0, description="seconds until an operation is answered instead")


class WarmedEntry(BaseModel):
    """How an entry fared for one target.

    `hot`: nothing was to be done · `built`: a fresh lock was there, its bundle is by now · `resolved`: a new lock and
    its bundle · `stale`: an older lock, because an index could not be reached · `failed`. The problem of the last two
    says why.
    """

    name: str
    target: TargetAnswer
    outcome: Literal["hot", "built", "resolved", "stale", "failed"]
    lock: str | None
    bundle: str | None
    seconds: float
    problem: Problem | None


class WarmAnswer(BaseModel):
    """Every entry for each of its targets, then what was asked for lately; `hot`: all of them are."""

    hot: bool
    entries: list[WarmedEntry]
