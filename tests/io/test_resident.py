"""The peak of a run's memory does not count what an earlier run has freed."""

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from spaudio.io.resident import reset_peak, resident_bytes
from spaudio.training.allocator import keep_freed_memory

keep_freed_memory()
before = resident_bytes("VmRSS")
blocks = [torch.ones(1 << 18) for _ in range(300)]  # of 1 MiB
assert resident_bytes("VmRSS") - before > 290 * 2**20
del blocks
reset_peak()
print(resident_bytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux reports the peak")
def test_freed_memory_is_not_part_of_the_next_peak() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert int(done.stdout) < 30 * 2**20, done.stderr
