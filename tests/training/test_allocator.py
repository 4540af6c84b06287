import platform
import subprocess
import sys

import pytest

# In a process of its own: what other tests have allocated decides where the heap can grow.
COUNT_FAULTS = """
import resource
from spaudio.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 2**26  # 64 MiB, above the limit from which blocks are mapped anew
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_the_next_step_finds_freed_memory_mapped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True
    )
    usual, kept = map(int, done.stdout.split())
    assert kept < 100 < usual  # of 16,384 pages
