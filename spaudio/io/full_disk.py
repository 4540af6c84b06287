"""Turns errors about a full or read-only disk into one line that says how to continue."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spaudio.errors import DataError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk or the user's quota is full, or a file too large for it."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def named_full_disk(folder: Path, setting: str) -> Iterator[None]:
    """Turns an error about a disk or folder into one that names the setting of the folder.

    Args:
        folder: Where data are written.
        setting: Name of the setting that chooses it.

    Raises:
        DataError: If the disk is full, a file too large, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        file = Path(os.path.abspath(str(error.filename or "/")))
        if error.errno in _CLOSED and file.is_relative_to(os.path.abspath(folder)):
            raise DataError(
                f"{setting}={folder} cannot be written ({error.filename}: {error.strerror}); "
                f"correct its permissions, or name another folder with {setting}=FOLDER"
            ) from error
        if not is_full(error):
            raise
        full, remedy = f"the disk of {setting}={folder} is full", "free space there"
        if error.errno == errno.EFBIG:
            named = error.filename or f"a file in {setting}={folder}"
            full, remedy = (
                f"{named} is larger than its disk or `ulimit -f` allows",
                "raise the limit",
            )
        raise DataError(
            f"{full}; {remedy}, or name a folder on another disk with {setting}=FOLDER. Finished "
            "work is kept: the same command continues"
        ) from error
