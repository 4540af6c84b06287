"""Hides libmpg123's messages where file descriptor 2 can be redirected safely."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from spaudio.io.spread import is_worker

_REMARK = re.compile(r"\[src/libmpg123/|Note: |Warning: ")
# Of tags, and of the length that a file declares, which `decode` checks itself.
_HARMLESS = re.compile(r"/id3\.c:|Xing stream size")


@contextmanager
def decoder_remarks() -> Iterator[list[str]]:
    """Collects what the MP3 decoder prints on standard error while the context is open.

    libsndfile does not let its callers silence libmpg123, which writes to the file descriptor
    itself. The descriptor is redirected in a process of `spaudio.io.spread.spread` only, as nothing
    else writes to it there at the same time. In other processes the remarks go to the terminal.

    Yields:
        A list, which is filled when the context closes: lines that tell of damaged sound.
    """
    remarks: list[str] = []
    if not is_worker():
        yield remarks
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with os.fdopen(os.memfd_create("remarks"), "rb") as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield remarks
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            printed.seek(0)
            for line in printed.read().decode("utf-8", "replace").splitlines(keepends=True):
                if not _REMARK.match(line):  # such as a warning of Python
                    sys.stderr.write(line)
                elif not _HARMLESS.search(line):
                    remarks.append(line.strip())
