"""One process at a time in a folder: concurrent runs must not prepare the same data twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spaudio.errors import SpaudioError

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits for the lock on ``file`` and holds it; it ends with the process, however that ends.

    Windows has no such lock in the standard library; there the block runs unguarded.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds ``<folder>/lock`` against other processes, and does not wait for it.

    Processes that are forked from this one, as those that load batches, do not hold it: it ends
    with this process even where they outlive it.

    Raises:
        SpaudioError: If another process holds it.
    """
    with (folder / "lock").open("a") as handle:
        if sys.platform != "win32":
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise SpaudioError(
                    f"{folder} is being trained by another process; wait for its end, or start a "
                    "run of its own"
                ) from error
        yield
