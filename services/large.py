"""Large requests do their own work in a thread, so that nobody waits behind them.

Reading a hundred thousand rows, packing them and counting their groups takes a second and more of
the interpreter; on the event loop, every other call would stand still for as long.
Rule: what grows with a request's rows or bytes, and is pure, goes through `aside` where the request
is large. The threads are few: large requests queue behind one another, not before small ones.
Boundary: threads of this process; where the limits lie, and nothing of what is done there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

__all__ = ["LARGE_BYTES", "LARGE_ROWS", "aside"]

LARGE_BYTES: Final = 128 << 10
LARGE_ROWS: Final = 512
_P = ParamSpec("_P")
_T = TypeVar("_T")
_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="large-request")


async def aside(work: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
    """Run `work` in one of the threads; raises what it raises."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, partial(work, *args, **named))
