"""Folders of clips cut from recordings, and which of the recordings cannot be used."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spaudio.audio.decode import is_passing
from spaudio.errors import AudioError, reason
from spaudio.io.atomic import make_folder, remove_folder
from spaudio.io.progress import progress_bar
from spaudio.io.state import FileState

_CONTENT = "content.json"


def make_cuts(
    target: Path,
    folder: Path,
    recordings: Sequence[str],
    cut: Callable[[str, Path], Iterator[Path]],
    title: str,
) -> dict[str, str]:
    """Cuts clips out of recordings into a folder that appears whole or not at all.

    Nothing is done if the folder exists, unless files of it are missing, or the system can now read
    a recording that it could not read before. Only one process at a time may make it.

    Args:
        target: The folder.
        folder: Folder of the recordings.
        recordings: Their paths, relative to it.
        cut: Writes the clips of a recording below a folder, and yields the path of each. If it then
            raises AudioError, these are removed.
        title: Title of the progress bar.

    Returns:
        The recordings that cannot be used, each with the reason.
    """

    def fill(staging: Path) -> None:
        bad, passing, written = {}, [], list[str]()
        with progress_bar(title, len(recordings)) as advance:
            for name in recordings:
                clips = []
                try:
                    for clip in cut(name, staging):
                        clips.append(clip)
                except AudioError as error:
                    bad[name] = reason(error, folder / name)
                    if is_passing(error):
                        passing.append(name)
                    for clip in clips:
                        clip.unlink()
                else:
                    written += [os.fspath(clip.relative_to(staging)) for clip in clips]
                advance(1)
        content = json.dumps({"bad": bad, "passing": passing, "written": written})
        (staging / _CONTENT).write_text(content, encoding="ascii")

    if target.is_dir() and not _is_whole(target, folder):
        remove_folder(target)
    make_folder(target, fill)
    found: dict[str, str] = _read(target)["bad"]
    return found


def _is_whole(target: Path, folder: Path) -> bool:
    """Whether a folder of clips holds all that can be cut."""
    try:
        found = _read(target)
    except (OSError, ValueError):
        return False
    if any(_is_readable(folder / name) for name in found["passing"]):
        return False
    return all((target / path).is_file() for path in found["written"])


def _read(target: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((target / _CONTENT).read_text(encoding="ascii"))
    return found


def _is_readable(file: Path) -> bool:
    """Whether the system can read all of a file."""
    try:
        with file.open("rb") as stream:
            while stream.read(1 << 20):
                pass
    except OSError:
        return False
    return True


def state_of(file: Path) -> FileState | None:
    """Returns the state of a recording, or None if it cannot be found."""
    try:
        return FileState.of(file.stat())
    except OSError:
        return None
