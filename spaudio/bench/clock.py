"""Times of several functions in turn, so that what else the machine does falls on all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def take_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    limit: float,
    wait: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Runs each function once a round, after one round that is not counted.

    Args:
        functions: What to time, by name.
        rounds: Times that each is timed.
        limit: Seconds after which no further round begins, once there are three.
        wait: Returns when all that was begun is done; on a GPU, where calls return early.

    Returns:
        Seconds of each function, round by round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    begun = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds + 1):
            if turn > 3 and time.perf_counter() - begun > limit:
                break
            for name, function in functions.items():
                wait()
                start = time.perf_counter()
                function()
                wait()
                took = time.perf_counter() - start
                if turn:
                    seconds[name].append(took)
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
