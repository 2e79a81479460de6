"""Memory that a process holds and does not use."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Give the system back what the C library keeps for later; elsewhere than on Linux, nothing.

    After the networks have run that is a hundred megabytes and more.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
