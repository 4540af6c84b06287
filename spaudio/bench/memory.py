"""Peak memory of one forward and backward pass, above what inputs, result and gradients take.

On a GPU torch's allocator tells it. On a CPU neither torch's allocator nor a profiler sees what
conv1d's library or the native kernel take, but the resident set of a new process does:
``python -m spaudio.bench.memory BACKEND THREADS SHAPE`` prints by how many bytes it rose.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from spaudio.bench.shapes import Shape

_STATUS = Path("/proc/self/status")


def peak_extra_bytes(backend: str, shape: Shape, device: str = "cpu") -> int | None:
    """Bytes; for a CPU from a process of its own, None where the system tells none (not Linux)."""
    if device == "cuda":
        return _allocated(shape.step(backend, device))
    if not _STATUS.exists():
        return None
    command = [sys.executable, "-m", __name__, backend, str(torch.get_num_threads())]
    done = subprocess.run(
        [*command, json.dumps(shape.as_dict())], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def _allocated(step: Callable[[], tuple[Tensor, ...]]) -> int:
    step()  # libraries and their workspaces are not the filter's
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = step()
    return torch.cuda.max_memory_allocated() - before - _size(kept)


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


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
    extra = _resident("VmHWM") - before - _size(kept)
    print(max(0, extra))


if __name__ == "__main__":
    _main(*sys.argv[1:])
