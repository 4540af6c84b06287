import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from typing import Any

import pytest

from spaudio.errors import AudioError, DataError
from spaudio.io.spread import spread

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are threads")


def square(value: int) -> tuple[int, int]:
    return value * value, os.getpid()


@pytest.mark.parametrize(("number", "alone"), [(40, True), (300, False)])
def test_results_come_in_order(number: int, alone: bool) -> None:
    results = list(spread(square, range(number), 2))
    assert [result for result, _ in results] == [value**2 for value in range(number)]
    if sys.platform == "linux":
        assert alone == (os.getpid() in {process for _, process in results})


def total(number: int) -> int:
    return sum(spread(operator.neg, range(number), 2))


@LINUX
def test_within_a_pool_it_stays_in_its_process() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(total, [300]) == [-sum(range(300))]


class Counted(list[int]):
    """Records how many of its values have been taken, in slices from the start."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        self.taken = max(self.taken, key.stop)
        return super().__getitem__(key)


def test_few_results_wait_for_the_caller() -> None:
    values = Counted(range(10_000))
    started = spread(abs, values, 2)
    assert list(islice(started, 3)) == [0, 1, 2]
    started.close()  # ends the processes
    assert 3 <= values.taken <= 100


def refuse(value: int) -> int:
    if value == 170:
        raise AudioError("170 cannot be used")
    return value


def test_an_error_is_that_of_the_function() -> None:
    seen: list[int] = []
    with pytest.raises(AudioError, match="170 cannot be used"):
        seen.extend(spread(refuse, range(300), 2))
    assert seen == list(range(168))  # whole chunks before it


def die(value: int) -> int:
    if value == 170:
        os._exit(9)
    return value


@LINUX
def test_the_death_of_a_process_is_named() -> None:
    with pytest.raises(DataError, match=r"one of 2 processes died.*OMP_NUM_THREADS=1"):
        list(spread(die, range(300), 2))


SCRIPT = """
import os, sys, time
from spaudio.io.spread import spread

def slow(value):
    os.write(sys.stdout.fileno(), b"%d\\n" % os.getpid())  # one write, unlike that of print
    time.sleep(60)

list(spread(slow, range(200), 2))
"""


@LINUX
def test_no_process_outlives_one_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        others = [int(parent.stdout.readline()) for _ in range(2)]
        assert parent.pid not in others
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(is_running(process) for process in others):
        assert time.monotonic() < deadline, others
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # one that has ended but waits to be reaped
