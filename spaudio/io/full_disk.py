"""Turns a full disk, or a file too large for it, into a line that says how to continue."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spaudio.errors import DataError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk or the user's quota is full, or a file too large for it."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def named_full_disk(folder: Path, setting: str) -> Iterator[None]:
    """Turns an error about a full disk into one that names the setting of the folder.

    Args:
        folder: Where data are written.
        setting: Name of the setting that chooses it.

    Raises:
        DataError: If the disk is full, or a file too large.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        full, remedy = f"the disk of {setting}={folder} is full", "free space there"
        if error.errno == errno.EFBIG:
            file = error.filename or f"a file in {setting}={folder}"
            full, remedy = (
                f"{file} is larger than its disk or `ulimit -f` allows",
                "raise the limit",
            )
        raise DataError(
            f"{full}; {remedy}, or name a folder on another disk with {setting}=FOLDER. Finished "
            "work is kept: the same command continues"
        ) from error
