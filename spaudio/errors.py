"""Errors that the user can mend. Each message names the value that was given and the remedy.

The command line prints them as one line without a traceback and exits with code 1.
"""

from collections.abc import Sequence


class SpaudioError(Exception):
    """Base of all errors below; catch it to treat them alike."""


class ConfigError(SpaudioError):
    """A setting is unknown or out of range."""


class AudioError(SpaudioError):
    """A clip cannot be used; the message names the file and the reason."""


class DataError(SpaudioError):
    """A data set, manifest or download is missing, incomplete or inconsistent."""


class CheckpointError(SpaudioError):
    """A run cannot be loaded, resumed or saved."""


def some(names: Sequence[str], most: int = 5) -> str:
    """Lists names in a message: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
