"""The state of a file, which reveals a change of its content without reading it."""

import os
from typing import NamedTuple


class FileState(NamedTuple):
    """What the system reports about a file without reading it.

    Size and modification time are not enough: copying tools restore the time, and two files may
    have both in common. On POSIX, writing to a file or renaming it also changes its status change
    time (``ctime``), which no program can set, and two files never have the same number
    (``inode``). So new content has a new state. The converse does not hold: ``chmod`` changes the
    state, too.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        """Returns the state that a result of `os.stat` describes."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
