"""Where a pretrained encoder is: in a folder, or on the Hugging Face Hub."""

import re
from pathlib import Path

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def is_folder(source: str) -> bool:
    """Whether the source of a pretrained encoder is a folder, existing or not, and not a Hub id."""
    return Path(source).is_dir() or not HUB_ID.fullmatch(source)


def is_missing(source: str) -> bool:
    """Whether the source of a pretrained encoder is a folder that does not exist."""
    return is_folder(source) and not Path(source).is_dir()
