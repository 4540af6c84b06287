"""Times several functions in turn, so that other load on the machine affects all equally."""

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
    """Runs each function once per round, after one warm-up round.

    Args:
        functions: Functions to time, by name.
        rounds: Number of measurements of each.
        limit: Seconds after which no further round starts; at least three are run.
        wait: Blocks until all work is done. Needed on a GPU, where calls are asynchronous.

    Returns:
        Seconds of each function, one value per round.
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
    """Returns the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
