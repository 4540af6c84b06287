"""Applies a function to many values in several processes, in order and in bounded memory."""

import ctypes
import multiprocessing
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

from spaudio.errors import DataError

_LEAST = 64  # values per process: for fewer, starting one is not worth it
_CHUNK = 8  # values that a process takes at a time
_AHEAD = 4  # chunks per process that are submitted before their results are read
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_own = threading.local()

Value = TypeVar("Value")
Result = TypeVar("Result")


def spread(
    function: Callable[[Value], Result], values: Sequence[Value], workers: int
) -> Generator[Result, None, None]:
    """Yields the result for each value, in their order.

    If there are few values, or within a process pool, the calling process computes them all.
    Otherwise workers do. On Linux these are processes forked from it, so they share what
    ``function`` refers to, as it was at the first value; elsewhere they are threads. Only values
    and results are sent between them.

    Args:
        function: Applied to each value.
        values: The values.
        workers: Largest number of processes, or of threads outside Linux.

    Raises:
        DataError: If a process dies.
    """
    workers = min(workers, len(values) // _LEAST)
    # Processes of a `multiprocessing.Pool` must not start others.
    if workers < 2 or multiprocessing.current_process().daemon:
        yield from map(function, values)
        return
    pool = _make_pool(workers, function)
    waiting: deque[Any] = deque()
    try:
        for start in range(0, len(values), _CHUNK):
            waiting.append(pool.submit(_apply, values[start : start + _CHUNK]))
            if len(waiting) > _AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenExecutor as error:
        raise DataError(
            f"one of {workers} processes died, probably for lack of memory; run the same command "
            "again, with fewer of them (OMP_NUM_THREADS=1)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def is_worker() -> bool:
    """Whether this process was forked by :func:`spread`; it computes one value at a time."""
    return getattr(_own, "forked", False)


def _make_pool(workers: int, function: Callable[[Any], Any]) -> Executor:
    if sys.platform == "linux":
        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(workers, context, _begin_process, (function,))
    return ThreadPoolExecutor(workers, initializer=_begin, initargs=(function,))


def _begin(function: Callable[[Any], Any]) -> None:
    _own.function = function


def _begin_process(function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the calling process ends this one
    # If that process were killed, this one would wait for values forever.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _own.forked = True
    _begin(function)


def _apply(values: Sequence[Any]) -> list[Any]:
    return [_own.function(value) for value in values]
