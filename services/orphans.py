"""A worker ends with the process that started it.

Rule: a worker whose supervisor was killed would go on alone, hold the log's lock and the ports, and
keep the next start from working; so the kernel is asked to send it SIGTERM at that moment.
Source: Linux prctl(2), PR_SET_PDEATHSIG; other systems are left as they are.
"""

from __future__ import annotations

import ctypes
import signal
import sys

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask for SIGTERM when the parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
