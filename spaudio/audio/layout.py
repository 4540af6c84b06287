"""Finds a data set below what the user gave as ``source=``."""

from __future__ import annotations

from pathlib import Path

from spaudio.errors import ConfigError, DataError
from spaudio.io.unpack import open_source


def find_root(source: str | Path | None, work: Path, inside: str, where: str) -> Path:
    """Opens a source and returns the folder in it, at most two levels down, that holds ``inside``.

    Args:
        source: Archive or folder; None is an error, for data sets that cannot be downloaded.
        work: Folder to unpack an archive into.
        inside: File or folder that upstream's layout has at its top.
        where: Where the data set is to be had, for the error's message.

    Raises:
        ConfigError: If ``source`` is None.
        DataError: If nothing in it holds ``inside``, or as `spaudio.io.unpack.open_source`.
    """
    if source is None:
        raise ConfigError(f"source= is required, an archive or folder: {where}")
    folder = open_source(source, work)
    for root in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        if (root / inside).exists():
            return root
    raise DataError(f"source={str(source)!r} holds no {inside}; {where}")
