"""Keeps freed memory in the process, so that the next training step finds it mapped."""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Tells glibc to reuse large blocks instead of returning them to the system.

    By default each block above a limit of at most 32 MiB is mapped again, page by page, whenever a
    step requests it; the convolutional stem spends a quarter of its time on that. The process
    keeps up to 2 GiB that it has freed. Other C libraries are left unchanged.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # Versions of glibc that refuse more than 32 MiB return 0. If both values are refused, the other
    # limit is not set either, because that would freeze this one at its current, lower value.
    if mallopt(_MMAP_THRESHOLD, 2**30) or mallopt(_MMAP_THRESHOLD, 2**25):
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
