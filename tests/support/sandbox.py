"""Whether builds can be sandboxed on this machine."""

import asyncio
import os

import pytest

from resolver.builds.running import Limits
from resolver.builds.sandbox import Bubblewrap

_MISSING = asyncio.run(Bubblewrap(Limits(), os.environ.get("PATH", os.defpath)).missing())

needs_sandbox = pytest.mark.skipif(_MISSING is not None, reason=f"no sandbox here: {_MISSING}")
"""For tests that build on the real sandbox."""
