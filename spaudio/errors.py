"""Errors that the user can fix. Each message names the given value and the remedy.

The command line prints them as one line without a traceback and exits with code 1.
"""

from collections.abc import Sequence
from pathlib import Path


class SpaudioError(Exception):
    """Base class of all errors below; catch it to handle them all."""


class ConfigError(SpaudioError):
    """A setting is unknown or out of range."""


class AudioError(SpaudioError):
    """A clip cannot be used; the message names the file and the reason."""


class DataError(SpaudioError):
    """A dataset, manifest or download is missing, incomplete or inconsistent."""


class CheckpointError(SpaudioError):
    """A run cannot be loaded, resumed or saved."""


def some(names: Sequence[str], most: int = 5) -> str:
    """Lists names for a message: the first ``most``, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun: ``"1 clip"``, ``"2,000 clips"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its class if that is empty."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def reason(error: BaseException, path: Path) -> str:
    """Returns an error's message without the path that it begins with, or the name of its class."""
    return str(error).removeprefix(f"{path}: ") or type(error).__name__


def how_to_install(extra: str) -> str:
    """Returns the command that installs an extra, for a message.

    It is for a clone, because the name alone is that of another project.
    """
    return f"pip install '.[{extra}]' in a clone of spaudio"
