"""What a pinned revision is answered with: one read, where nothing is left to be done but to say it."""

from collections.abc import Callable, Sequence

from resolver.domain.keys import resolution_key
from resolver.domain.pins import UNNAMED
from resolver.domain.requests import ResolveRequest
from resolver.service.uses import Uses
from storage.protocols import PinStore
from storage.records import PinName, Standing


class Pinned:
    """Step 1 of domain/pins.py in one read. `toolchain` is what bundles for a Python are built with."""

    def __init__(
        self, pins: PinStore, uses: Uses, toolchain: Callable[[str], str], *, platforms: Sequence[str] = ()
    ) -> None:
        self._pins = pins
        self._uses = uses
        self._toolchain = toolchain
        self._platforms = tuple(platforms)

    async def standing(self, request: ResolveRequest) -> Standing | None:
        """What stands for the request, with its bundle, in use and found whole lately; None where there is more to do:
        to pin, to extend, to build, to look whether all is there, to record that the workload is back after long.

        Raises what the store raises.
        """
        workload = request.workload
        if workload is None:
            return None
        unnamed = workload.revision is None
        name = PinName(workload.namespace, workload.name, UNNAMED if workload.revision is None else workload.revision)
        if name.revision.startswith(UNNAMED) and not unnamed:
            return None
        key, target = resolution_key(request, self._platforms), request.target
        found = await self._pins.standing(name, unnamed, key, target.name, self._toolchain(target.python))
        if found is None or found.bundle is None or not self._uses.is_recent(found.bundle.digest):
            return None
        return found if self._uses.seen(workload.namespace, workload.name, found.seen) else None
