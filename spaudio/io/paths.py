"""Paths as users write them."""

import os
from pathlib import Path

from spaudio.errors import ConfigError


def user_path(given: str | os.PathLike[str]) -> Path:
    """Returns the path that a setting names; a leading ``~`` is the home folder, if it is known."""
    return Path(os.path.expanduser(given))


def refuse_empty_source(source: object) -> None:
    """Refuses a setting ``source`` that is empty, which would name the working directory.

    Raises:
        ConfigError: If it is; None is accepted.
    """
    if source is not None and not str(source).strip():
        raise ConfigError("source= is empty; name an archive or a folder")


def refuse_interpolation(name: str) -> None:
    """Raises ConfigError if the path of a source would be taken for an interpolation."""
    if "${" in name:
        raise ConfigError(f"{name}: settings cannot hold `${{`; rename the folder")
