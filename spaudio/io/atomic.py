"""Files and folders that appear whole or not at all."""

import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Writes ``content`` beside ``path``, syncs it to disk and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the name of the file, which may be as long as the file system allows.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".spaudio-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(folder: Path, *, locked: bool = False) -> Iterator[Path]:
    """Yields a temporary folder to fill; renames it to ``folder``, or removes it on an error.

    Args:
        folder: Must not exist.
        locked: Whether the caller holds a lock, as `spaudio.audio.prepare` does. Only then are
            folders left by killed processes removed, because they look the same as one that
            another process is filling.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}."
    if locked:
        for left in folder.parent.glob(glob.escape(prefix) + "?" * 8):  # as tempfile names them
            shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        yield staging
        staging.chmod(0o755)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder that `make_folder` made, so that an interruption leaves no part of it there.

    What an interruption leaves elsewhere is removed when the folder is made again.
    """
    rest = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    folder.rename(rest / folder.name)
    shutil.rmtree(rest)


def make_folder(target: Path, fill: Callable[[Path], None], files: Collection[str] = ()) -> Path:
    """Lets ``fill`` write a folder that appears whole or not at all, unless it exists.

    A folder that lacks one of ``files`` is made again. Only one process at a time may make it.
    """
    if target.is_dir() and not all((target / file).is_file() for file in files):
        remove_folder(target)
    if not target.is_dir():
        with new_folder(target, locked=True) as staging:
            fill(staging)
    return target
