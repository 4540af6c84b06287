"""A progress bar on standard error for every step that may take over two seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar(
    description: str,
    total: int | None,
    *,
    done: int = 0,
    in_bytes: bool = False,
    show: bool = True,
) -> Iterator[Callable[[int], None]]:
    """Shows a bar while its block runs.

    Args:
        description: What is being done.
        total: Steps (or bytes) in all; None if unknown.
        done: Steps that are already done, as when work is resumed.
        in_bytes: Whether steps are bytes.
        show: False shows nothing.

    Yields:
        A function that advances the bar by a number of steps; any thread may call it.
    """
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        count,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
    ) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda steps: progress.advance(task, steps)
