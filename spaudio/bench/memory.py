"""Peak memory of one forward and backward pass, beyond inputs, result and gradients.

On a GPU it is read from torch's allocator. On a CPU, neither the allocator nor a profiler sees the
memory of the conv1d library or of the native kernel, so the resident set of a new process is read:
``python -m spaudio.bench.memory BACKEND THREADS SHAPE`` prints its increase in bytes.
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
    """Returns bytes. For a CPU, None on systems other than Linux."""
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
    step()  # warm-up: libraries and their workspaces do not count
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
    # A small warm-up pass: libraries, threads and their stacks do not count.
    Shape("warm", 1, 32, 8, ((4, 4),)).step(backend)()
    step = Shape.from_dict(json.loads(shape)).step(backend)
    # A function of glibc that returns free memory to the system.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _resident("VmRSS")
    kept = step()
    extra = _resident("VmHWM") - before - _size(kept)
    print(max(0, extra))


if __name__ == "__main__":
    _main(*sys.argv[1:])
