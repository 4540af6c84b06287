"""Paths as users write them."""

import os
from pathlib import Path


def user_path(given: str | os.PathLike[str]) -> Path:
    """Returns the path that a setting names; a leading ``~`` is the home folder, if it is known."""
    return Path(os.path.expanduser(given))
