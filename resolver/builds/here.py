"""Builders on this host: bubblewrap, with the interpreter that runs the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from resolver.builds.builder import FORMAT, SandboxedBuilder
from resolver.builds.sandbox import Bubblewrap
from resolver.domain.targets import TargetEnvironment

NO_CLASS = "the service runs on no target class that it knows"


class BuildersHere:
    """SdistBuilders on a `host` of that class; None: of none that is known."""

    def __init__(self, sandbox: Bubblewrap, host: TargetEnvironment | None) -> None:
        self._sandbox = sandbox
        self._host = host

    def name(self, target: TargetEnvironment | None) -> str:
        """See SdistBuilders."""
        return plain_name(self._host)

    async def unfit(self, target: TargetEnvironment) -> str | None:
        """See SdistBuilders. What is compiled here runs where the C library is no older."""
        host = self._host
        if host is not None and replace(host, rung=target.rung) == target and host.rung <= target.rung:
            return None
        return f"no builder for {target} is here"

    async def missing(self, target: TargetEnvironment | None) -> str | None:
        """See SdistBuilders."""
        return NO_CLASS if self._host is None else await self._sandbox.missing()

    @asynccontextmanager
    async def at_work(self, target: TargetEnvironment | None) -> AsyncIterator[SandboxedBuilder]:
        """See SdistBuilders."""
        assert self._host is not None  # noqa: S101 - `missing` was asked
        yield SandboxedBuilder(self._sandbox, self._sandbox, self._host)


def plain_name(host: TargetEnvironment | None) -> str:
    """The name of whoever builds for any platform: by the Python that does."""
    return f"{FORMAT}-cp{host.python.replace('.', '')}" if host else FORMAT
