"""What a process that runs for months, and has a second of much to do at its start, tells its memory managers."""

from __future__ import annotations

import contextlib
import ctypes
import gc

_M_TRIM_THRESHOLD = -1
"""glibc's name for it (mallopt(3)): how many free bytes at the top of the heap are given back to the system."""
_FREE_BYTES = 64 * 1024


def be_frugal() -> None:
    """Keep what imports made out of garbage collections, which hold up the loop, and give freed memory back early.

    By itself glibc raises its threshold with the largest block that was freed, and keeps megabytes after a first list.
    """
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # a C library that is not glibc
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)
