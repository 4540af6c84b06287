"""Tables of text and numbers, for the terminal and as Markdown.

The rows of a table are mappings with the header as keys. Rich is imported where a table is printed,
because the filter benchmarks need only torch.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from spaudio.io.escape import for_markdown, printable

if TYPE_CHECKING:
    from rich.table import Table


def markdown_table(rows: Sequence[Mapping[str, str]], text: int = 1) -> str:
    """Formats rows, whose cells are Markdown, as a table.

    The columns after the first ``text`` hold numbers.
    """
    header = list(rows[0])
    rule = ["---" if i < text else "--:" for i in range(len(header))]
    lines = [header, rule, *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Formats rows of plain text as a Markdown table."""
    plain = [{for_markdown(key): for_markdown(cell) for key, cell in row.items()} for row in rows]
    return markdown_table(plain)


def show_rows(rows: Sequence[Mapping[str, str]], title: str, file: IO[str] | None = None) -> None:
    """Prints rows as a table, to the standard output if no file is given.

    If a terminal is too narrow for it but wide enough for the transposed table, rows are columns.
    """
    from rich.console import Console

    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    table, console = _table(lines, title), Console(file=file)
    if console.is_terminal and _width(table) > console.width:
        turned = _table(list(zip(*lines, strict=True)), title)
        table = turned if _width(turned) <= console.width else table
    show(table, file)


def _table(lines: Sequence[Sequence[str]], title: str) -> Table:
    """Returns a table with the first line as its header."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(printable(title)))
    for i, name in enumerate(lines[0]):
        table.add_column(
            escape(printable(name)), justify="left" if i == 0 else "right", no_wrap=True
        )
    for line in lines[1:]:
        table.add_row(*(escape(printable(cell)) for cell in line))
    return table


def _width(table: Table) -> int:
    """Returns the width at which nothing is cut."""
    from rich.console import Console

    return Console(width=100_000).measure(table).maximum


def show(table: Table, file: IO[str] | None = None) -> None:
    """Prints a table at its full width, so that nothing is truncated."""
    from rich.console import Console

    console = Console(width=max(_width(table), Console().width), file=file)
    # rich would end the process, with another code, if what reads the output had closed it.
    out = file or sys.stdout
    out.flush()  # before the end of the capture, which flushes too
    with console.capture() as text:
        console.print(table)
    out.write(text.get())
    out.flush()


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation, which is NaN for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def score_text(value: float | None) -> str:
    """Returns a score for a table; an undefined one, None, as a dash."""
    return "-" if value is None else f"{value:.3f}"


def plus_minus(values: Sequence[float], *, digits: int = 4, sign: bool = False) -> str:
    """Formats mean ± standard deviation, or the value alone if there is only one."""
    mean, std = mean_std(values)
    written = f"{mean:{'+' if sign else ''}.{digits}f}"
    return written if math.isnan(std) else f"{written} ± {std:.{digits}f}"
