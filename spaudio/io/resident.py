"""Resident memory of this process, which Linux reports in more detail than other systems."""

import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def reset_peak() -> None:
    """Resets ``VmHWM``, the peak of the resident memory, to what is in use now.

    Memory that has been freed, as by an earlier run of a sweep, is returned to the system first.

    Raises:
        OSError: On systems other than Linux, or if the kernel does not allow it.
    """
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # glibc's allocator keeps freed memory otherwise
    Path("/proc/self/clear_refs").write_text("5")


def resident_bytes(field: str) -> int | None:
    """Returns ``VmRSS`` (resident memory) or ``VmHWM`` (its peak); None if it is not reported."""
    if not _STATUS.is_file():
        return None
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    return None if found is None else int(found[1]) * 1024


def peak_memory() -> int:
    """Returns the peak memory of this process, in bytes; on Linux since :func:`reset_peak`."""
    if (found := resident_bytes("VmHWM")) is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
