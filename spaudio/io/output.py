"""Checks the file that a command will write, before the work begins."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from spaudio.errors import ConfigError

MOST_BYTES = 255  # of a file name, on common file systems


def check_output(
    path: Path, option: str, *, inputs: Iterable[Path] = (), force: bool = False
) -> None:
    """Refuses a file that exists, cannot be written or is an input; makes no folder.

    Args:
        path: The file to write.
        option: The option that names it, such as ``--output``, for the message.
        inputs: Files and folders that the command reads. No existing file among or in them is
            replaced.
        force: Accept a regular file, which will be replaced.

    Raises:
        ConfigError: If the file must not or cannot be written.
    """
    given = f"{option} {path}"
    check_name(path, given, f"give a shorter one with {option.split()[-1]}")
    try:
        if path.is_symlink():
            raise ConfigError(f"{given} is a symbolic link; name the file itself")
        if path.is_dir():
            raise ConfigError(f"{given} is a folder; name a file in it")
        if not path.parent.is_dir():
            raise ConfigError(f"{given}: there is no folder {path.parent}; make it first")
        if path.exists():
            if not path.is_file():
                raise ConfigError(f"{given} is a device or pipe; name a regular file")
            if source := next((one for one in inputs if _holds(one, path)), None):
                raise ConfigError(
                    f"{given} would replace what the command reads ({source}); name another file"
                )
            if not force:
                raise ConfigError(f"{given} exists; name another file, or replace it with --force")
        with tempfile.TemporaryFile(dir=path.parent):  # permission bits do not tell all
            pass
    except OSError as error:
        raise ConfigError(
            f"{given} cannot be written ({error.strerror}); name a file in a folder that can be "
            "written to"
        ) from error


def check_name(path: Path, given: str, remedy: str) -> None:
    """Refuses a file name that is longer than file systems allow.

    Args:
        path: The file to write, whose folder may not exist.
        given: How the user named it, for the message.
        remedy: What the user can do.

    Raises:
        ConfigError: If the name is too long.
    """
    if (size := len(os.fsencode(path.name))) > MOST_BYTES:
        raise ConfigError(
            f"{given}: the file name {path.name} has {size} bytes, and may have {MOST_BYTES}; "
            f"{remedy}"
        )


def _holds(source: Path, path: Path) -> bool:
    """Returns whether an existing file is an input, a link to it, or lies in an input folder."""
    if source.is_dir():
        return path.resolve().is_relative_to(source.resolve())
    return source.exists() and os.path.samefile(source, path)
