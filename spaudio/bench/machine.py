"""What a measurement ran on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from spaudio.filters.fused import cpu


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor and versions; on a CPU also threads and vector width of the native kernel."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if device == "cuda":
        return {
            "processor": torch.cuda.get_device_name(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            **versions,
        }
    library = cpu.library()
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # Not Linux, or a kernel that names no model.
    return {
        "processor": model,
        "threads": torch.get_num_threads(),
        "vector_lanes": library and library.lanes,
        **versions,
    }
