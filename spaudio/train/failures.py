"""What goes wrong while a run trains, in one line that says how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from spaudio.errors import SpaudioError


@contextmanager
def named_failures(run: Path) -> Iterator[None]:
    """Turns what the machine does to a run into an error that names cause and remedy.

    Raises:
        SpaudioError: Where memory or disk is used up, the folder cannot be written to, or a process
            that loads batches has died.
    """
    go_on = f"the last checkpoint is whole; go on with resume={run}"
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        # NumPy's MemoryError comes out of a worker as a RuntimeError that tells of it.
        said, line = str(error), _line(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
            said.startswith(("Caught MemoryError", "Caught OutOfMemoryError"))
        ):
            raise SpaudioError(
                f"out of memory: {line}. Free some, or start a run with a larger "
                f"trainer.accumulate or fewer trainer.workers; {go_on}"
            ) from error
        if said.startswith("DataLoader worker"):
            raise SpaudioError(
                f"a process that loads batches has died: {line}. Where it was killed for memory, "
                f"free some, or take fewer trainer.workers in a new run; {go_on}"
            ) from error
        if isinstance(error, OSError):
            raise SpaudioError(f"{line}. Mend that; {go_on}") from error
        raise


def _line(error: BaseException) -> str:
    """Returns the last line of what an error says: of one from a worker, the error itself."""
    lines = str(error).strip().splitlines()
    return lines[-1].rstrip(".") if lines else type(error).__name__
