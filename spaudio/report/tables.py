"""Tables of text and numbers, for the terminal and as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def make_table(
    title: str, header: Sequence[str], body: Sequence[Sequence[str]]
) -> tuple[Table, str]:
    """Makes a table for the terminal, and the same as Markdown.

    Args:
        title: Of the table for the terminal.
        header: Names of the columns. The first holds text, the others numbers.
        body: Rows.
    """
    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for line in body:
        table.add_row(*line)
    lines = [header, ["---"] * len(header), *body]
    return table, "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def show(table: Table) -> None:
    """Prints a table at its full width, so that no number is truncated."""
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(needed, Console().width)).print(table)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation, which is NaN for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def plus_minus(values: Sequence[float], *, digits: int = 4, sign: bool = False) -> str:
    """Formats mean ± standard deviation, or the value alone if there is only one."""
    mean, std = mean_std(values)
    written = f"{mean:{'+' if sign else ''}.{digits}f}"
    return written if math.isnan(std) else f"{written} ± {std:.{digits}f}"
