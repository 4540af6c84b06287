import platform
import resource

import pytest
import torch

from spaudio.training.allocator import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_the_next_step_finds_freed_memory_mapped() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)  # 64 MiB, above the limit from which blocks are mapped anew
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    # A small block after the first large one may keep the second from its place, not all others.
    assert min(faults() for _ in range(5)) < 100  # of 16,384 pages
