"""Files and folders that appear whole or not at all."""

import glob
import os
import shutil
import tempfile
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Writes ``content`` beside ``path``, syncs it to disk and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
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


def make_staging(folder: Path) -> Path:
    """Makes a folder beside ``folder``, to be filled and then renamed to it.

    It removes those left by killed processes. They look the same as one that another process is
    filling, so the caller must hold a lock, as `spaudio.audio.prepare` does.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}."
    for left in folder.parent.glob(glob.escape(prefix) + "?" * 8):  # as tempfile names them
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
