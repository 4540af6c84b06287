"""A progress bar on standard error for every step that may take over two seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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


class Advance(Protocol):
    """Advances a bar; any thread may call it."""

    def __call__(self, steps: int, text: str | None = None) -> None:
        """Advances the bar by a number of steps, and replaces its text if one is given."""


@contextmanager
def progress_bar(
    description: str,
    total: int | None,
    *,
    done: int = 0,
    in_bytes: bool = False,
    with_text: bool = False,
    show: bool = True,
) -> Iterator[Advance]:
    """Shows a bar while its block runs.

    Args:
        description: What is being done.
        total: Steps (or bytes) in all; None if unknown.
        done: Steps that are already done, as when work is resumed.
        in_bytes: Whether steps are bytes.
        with_text: Show a text, which each advance can replace, instead of the number of steps.
        show: False shows nothing.

    Yields:
        A function that advances the bar.
    """
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *([] if with_text else [count]),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([TextColumn("{task.fields[text]}", markup=False)] if with_text else []),
        console=Console(stderr=True),
        disable=not show,
    ) as progress:
        task = progress.add_task(description, total=total, completed=done, text="")

        def advance(steps: int, text: str | None = None) -> None:
            if text is None:
                progress.advance(task, steps)
            else:
                progress.update(task, advance=steps, text=text)

        yield advance
