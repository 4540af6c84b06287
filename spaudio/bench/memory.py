"""Peak memory of one forward and backward pass, seen by the operating system, in a new process.

Neither torch's allocator nor a profiler sees what conv1d's library or the native kernel take, but
the resident set does: ``python -m spaudio.bench.memory BACKEND SHAPE`` prints by how many bytes it
rose above what inputs, result and gradients take.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from spaudio.bench.shapes import Shape

_STATUS = Path("/proc/self/status")


def peak_extra_bytes(backend: str, shape: Shape) -> int | None:
    """Runs this module in a process of its own; None where the system does not tell (not Linux)."""
    if not _STATUS.exists():
        return None
    command = [sys.executable, "-m", __name__, backend, str(torch.get_num_threads())]
    done = subprocess.run(
        [*command, json.dumps(shape.as_dict())], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None, f"the kernel reports {field}"
    return int(found[1]) * 1024


def _main(backend: str, threads: str, shape: str) -> None:
    torch.set_num_threads(int(threads))
    # A small pass first: libraries, threads and their stacks are not the filter's.
    Shape("warm", 1, 32, 8, ((4, 4),)).step(backend)()
    step = Shape.from_dict(json.loads(shape)).step(backend)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's: gives free memory back
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _resident("VmRSS")
    kept = step()
    extra = _resident("VmHWM") - before - sum(t.numel() * t.element_size() for t in kept)
    print(max(0, extra))


if __name__ == "__main__":
    _main(*sys.argv[1:])
