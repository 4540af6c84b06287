"""Turns machine failures during training into one-line errors that say how to continue."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from spaudio.errors import SpaudioError


@contextmanager
def named_failures(run: Path) -> Iterator[None]:
    """Turns failures of memory, disk and loader processes into errors with cause and remedy.

    Raises:
        SpaudioError: If memory or disk space runs out, the folder cannot be written to, or a
            process that loads batches dies.
    """
    go_on = f"the last checkpoint is intact; continue with resume={run}"
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        # A worker's MemoryError arrives as a RuntimeError with the original in its text.
        said = str(error)
        # The last line of a worker's traceback is the error itself.
        line = (said.strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
            said.startswith(("Caught MemoryError", "Caught OutOfMemoryError"))
        ):
            raise SpaudioError(
                f"out of memory: {line}. Free memory, or start a run with a larger "
                f"trainer.accumulate or fewer trainer.workers; {go_on}"
            ) from error
        if said.startswith("DataLoader worker"):
            raise SpaudioError(
                f"a process that loads batches has died: {line}. If memory ran out, "
                f"free some or start a new run with fewer trainer.workers; {go_on}"
            ) from error
        if isinstance(error, OSError):
            raise SpaudioError(f"{line}. Correct this; {go_on}") from error
        raise
