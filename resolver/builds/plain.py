"""Runs a step in a process of its own, which shuts itself in as far as the kernel lets it: for steps that look at what
nobody trusts, and run none of it."""

import asyncio
import shutil
from pathlib import Path

import pip

from resolver.builds import inside
from resolver.builds.running import ENVIRONMENT, THIS_PYTHON, Limits, Ran, Run, python, start

_LIBRARY = Path(inside.__file__).parents[len(inside.__name__.split("."))]
_PIP = Path(pip.__file__).parent


class Plain:
    """A sandbox for `read` and `accept` alone. Its folders are next to the answers."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.about = THIS_PYTHON

    async def run(self, step: str, task: Path, answer: Path) -> Ran:
        """See Sandbox."""
        root = answer.with_name("root")
        (root / "tmp").mkdir(parents=True)
        argv = [python(), "-I", "-B", "-c", start(str(_LIBRARY))]
        argv += [step, str(task / "task.json"), str(root), str(_PIP), "--confine"]
        environment = {**ENVIRONMENT, "HOME": str(root), "TMPDIR": str(root / "tmp")}
        ran = await Run(self.limits, environment, str(root)).to_its_end(argv, answer)
        await asyncio.to_thread(shutil.rmtree, root)  # where it is cancelled, it goes with all that the build had
        return ran
