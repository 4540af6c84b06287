"""Peak memory of one forward and backward pass, beyond inputs, result and gradients.

On a GPU it is read from torch's allocator. On a CPU, neither the allocator nor a profiler sees the
memory of the conv1d library or the native kernel, so the resident set of a new process is measured.
"""

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor

from spaudio.bench.shapes import Shape
from spaudio.io.resident import reset_peak, resident_bytes


def peak_extra_bytes(backend: str, shape: Shape, device: str = "cpu") -> int | None:
    """Returns the number of bytes, or None for a CPU on systems other than Linux."""
    if device == "cuda":
        step = shape.step(backend, device)
        step()  # warm-up: libraries and their workspaces do not count
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = step()
        return torch.cuda.max_memory_allocated() - before - _size(kept)
    if resident_bytes("VmRSS") is None:
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_resident_extra, backend, shape, torch.get_num_threads()).result()


def _resident_extra(backend: str, shape: Shape, threads: int) -> int:
    torch.set_num_threads(threads)
    # A small warm-up pass: libraries, threads and their stacks do not count.
    Shape("warm", 1, 32, 8, ((4, 4),)).step(backend)()
    step = shape.step(backend)
    reset_peak()
    before = resident_bytes("VmRSS")
    kept = step()
    peak = resident_bytes("VmHWM")
    assert before is not None, "the kernel reports VmRSS"
    assert peak is not None, "the kernel reports VmHWM"
    return max(0, peak - before - _size(kept))


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)
