"""The machine on which a benchmark ran."""

from __future__ import annotations

import platform
from typing import Any

import torch

from spaudio.filters.fused import cpu
from spaudio.report.provenance import processor_name


def machine(device: str = "cpu") -> dict[str, Any]:
    """Returns processor and versions; for a CPU also threads and vector width of the kernel."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if device == "cuda":
        return {
            "processor": torch.cuda.get_device_name(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            **versions,
        }
    library = cpu.library()
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "vector_lanes": library and library.lanes,
        **versions,
    }
