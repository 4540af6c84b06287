"""One process at a time in a folder: concurrent runs must not prepare the same data twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spaudio.errors import SpaudioError
from spaudio.io.messages import say

_LOCK = "lock"  # in the folder that a process has claimed


@contextmanager
def locked(file: Path, waiting: str | None = None) -> Iterator[None]:
    """Waits for the lock on ``file`` and holds it, at most until this process ends.

    Args:
        file: The file.
        waiting: Message that is printed if another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        held = lock.acquire(timeout=-1 if waiting is None else 0)
    except Timeout:
        say(waiting)
        held = lock.acquire()
    with held:
        yield


def wait_for(folder: Path, waiting: str) -> None:
    """Waits until no other process has claimed a folder (see :func:`claimed`).

    Args:
        folder: The folder.
        waiting: Message that is printed if one has.
    """
    with locked(folder / _LOCK, waiting):
        pass


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds ``<folder>/lock`` against other processes, without waiting for it.

    Forked processes, such as data loader workers, do not hold it, so it is released when this
    process ends, even if they outlive it.

    Raises:
        SpaudioError: If another process holds it.
    """
    try:
        with FileLock(folder / _LOCK, timeout=0):
            yield
    except Timeout as error:
        raise SpaudioError(
            f"another process is training in {folder}; wait for it, or start another run"
        ) from error
