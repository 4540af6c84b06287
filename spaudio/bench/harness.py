"""Shared by all benchmarks: arguments, timing in turn, facts about the machine, printed table."""

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from spaudio.errors import counted
from spaudio.filters.fused import cpu
from spaudio.report.provenance import processor_name
from spaudio.report.tables import markdown_table


def at_least_one(text: str) -> int:
    """Reads a whole number of at least 1 from the command line.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 1")
    return int(text)


def take_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    limit: float,
    wait: Callable[[], object] = lambda: None,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Runs each function once per round, after one warm-up round.

    That way, other load on the machine affects all functions equally.

    Args:
        functions: Functions to time, by name.
        rounds: Number of measurements of each.
        limit: Seconds after which no further round starts; at least three are run.
        wait: Blocks until all work is done. Needed on a GPU, where calls are asynchronous.
        before: Called before each function; its time does not count.

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
                before()
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


def machine(device: str = "cpu") -> dict[str, Any]:
    """Returns processor and versions; for a CPU also threads and the kernel's vector width."""
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


def describe(report: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Formats a report as Markdown.

    Args:
        report: ``machine``, ``rows`` with ``seconds`` and ``rounds``, and perhaps ``title``.
        columns: The template of each column, such as ``{parameters:,}`` or ``{ms:.1f}``. Text
            columns, which have no format, come first. A cell is empty if its value is None.
    """
    facts = report["machine"]
    if "threads" in facts:
        threads, lanes = facts["threads"], facts["vector_lanes"]
        how = f"{counted(threads, 'thread')}, "
        how += f"vectors of {lanes} floats" if lanes else "without the native kernel"
    else:
        how = f"float32 products {facts['float32_matmul_precision']}"
    rounds = min(row["rounds"] for row in report["rows"])
    rows = []
    for row in report["rows"]:
        values = {**row, "ms": 1e3 * row["seconds"]}
        cells = {}
        for name, template in columns.items():
            try:
                cells[name] = template.format_map(values)
            except TypeError:  # None has no format
                cells[name] = ""
        rows.append(cells)
    return (
        f"{report.get('title', '')}{facts['processor']}, {how}, torch {facts['torch']}; medians of "
        f"{rounds} rounds or more\n\n"
        + markdown_table(rows, sum(":" not in template for template in columns.values()))
    )
