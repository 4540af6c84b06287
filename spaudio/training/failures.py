"""Turns machine failures during training into one-line errors that say how to continue."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from spaudio.errors import SpaudioError
from spaudio.training.checkpoint import CHECKPOINTS

_FROM_WORKER = "Caught "  # begins an error that a loader process passes on, with its traceback


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or a GPU, even in a loader process.

    For lack of CPU memory, torch raises a plain ``RuntimeError``.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError | OSError) and (
        "allocate memory" in said
        or said.startswith((f"{_FROM_WORKER}MemoryError", f"{_FROM_WORKER}OutOfMemoryError"))
    )


@contextmanager
def named_failures(run: Path) -> Iterator[None]:
    """Turns failures of memory, disk and loader processes into errors with cause and remedy.

    Raises:
        SpaudioError: If memory or disk space runs out, the folder cannot be written to, or a
            process that loads batches dies. One that such a process raises is kept, without the
            traceback.
    """
    try:
        yield
    except (SpaudioError, MemoryError, OSError, RuntimeError) as error:
        go_on = f"continue with resume={run}"
        if any((run / CHECKPOINTS).glob("[!.]*")):  # of either stage, and not half-written
            go_on = f"the last checkpoint is intact; {go_on}"
        said = str(error)
        line = (said.strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
        from_worker = said.startswith(_FROM_WORKER)
        if from_worker:  # the last line of its traceback is the error itself
            line = line.partition(": ")[2] or line
        if isinstance(error, SpaudioError):
            if not from_worker:
                raise
            raise type(error)(f"{line}; {go_on}") from error
        if lacks_memory(error):
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
