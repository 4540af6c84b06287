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
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise SpaudioError(
            f"out of memory: {_line(error)}. Free some, or start a run with a larger "
            f"trainer.accumulate (or fewer trainer.workers); {go_on}"
        ) from error
    except OSError as error:
        raise SpaudioError(f"{_line(error)}. Mend that; {go_on}") from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise SpaudioError(
            f"a process that loads batches has died: {_line(error)}. Where it was killed for "
            f"memory, free some or take fewer trainer.workers in a new run; {go_on}"
        ) from error


def _line(error: BaseException) -> str:
    """Returns the last line of what an error says: of one from a worker, the error itself."""
    lines = str(error).strip().splitlines()
    return lines[-1].rstrip(".") if lines else type(error).__name__
