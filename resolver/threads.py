"""Threads, and what must not run in several of them at once."""

import asyncio
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# packaging reads what stands in a marker's quotes through `ast`, which before 3.11.8 counts its depth for all threads
# together: now and then, one of two that parse at once gets a SystemError (python/cpython#106905).
_AST_IS_FOR_ONE_THREAD = sys.version_info < (3, 11, 8)


async def parsing(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function returns, which parses requirements or markers and may take long: in a thread, or, where that
    would fail now and then, here. The event loop parses too, so a thread of its own for it would not help."""
    if _AST_IS_FOR_ONE_THREAD:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
