"""Corrections of labels, from the CSV file that ``report.html`` saves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from spaudio.audio.background import BACKGROUND
from spaudio.audio.find import composed, path_finder
from spaudio.audio.manifest import SourceClip
from spaudio.errors import ConfigError, DataError, counted
from spaudio.io.csv_files import from_csv, read_csv


class Correction(NamedTuple):
    """A line of the file: its number, path of the clip, label, and label before, as written."""

    line: int
    clip: str
    label: str
    was: str


def read_corrections(file: Path) -> list[Correction]:
    """Reads the lines of a file of corrections; see `correct_labels`.

    Raises:
        ConfigError: If the file cannot be read, or holds none.
        DataError: If a line has more cells than there are columns.
    """
    rows = read_csv("labels", file)
    if not rows or not {"clip", "label"} <= set(rows[0][1]):
        raise ConfigError(
            f"labels={file} holds no corrections; expected a CSV with the columns clip and label, "
            "as report.html saves it"
        )
    return [
        Correction(number, *(from_csv(row.get(key) or "") for key in ("clip", "label", "was")))
        for number, row in rows
    ]


def correct_labels(clips: Sequence[SourceClip], file: Path) -> tuple[list[SourceClip], list[str]]:
    """Gives clips other labels, or leaves them out.

    Args:
        clips: All clips.
        file: CSV with the columns ``clip``, a path relative to the source, and ``label``, one of
            the classes, or empty to leave the clip out. If there is a column ``was``, it holds the
            clip's previous label, which is checked. Corrections of background clips that were not
            cut this time, because of another split or length, are not used.

    Returns:
        The clips, and sentences about what was changed, and what was not used.

    Raises:
        ConfigError: If the file cannot be read.
        DataError: If a line does not fit the clips; the message gives its number.
    """
    corrections = read_corrections(file)
    known = {clip.path: clip for clip in clips}
    find = path_finder(list(known))
    classes = sorted({clip.label for clip in clips})
    given: dict[str, str] = {}
    unused = 0
    for number, written, new, before in corrections:
        label, was = composed(new), composed(before)
        where, path = f"{file}, line {number}", find(written)
        if path is None and was == BACKGROUND:
            unused += 1
            continue
        if path is None:
            raise DataError(
                f"{where}: there is no clip {written!r} below the source; give its path relative "
                "to it"
            )
        if label and label not in classes:
            raise DataError(f"{where}: unknown class {label!r}; known: {', '.join(classes)}")
        if was and was != known[path].label:
            raise DataError(
                f"{where}: {path} was {was!r} when it was corrected, but is {known[path].label!r} "
                "now; remove the line, or correct it"
            )
        if given.setdefault(path, label) != label:
            raise DataError(f"{where}: {path} has another label in a line above; keep one of them")
    changed = sum(bool(label) and label != known[path].label for path, label in given.items())
    left_out = sum(not label for label in given.values())
    found = [replace(c, label=given.get(c.path, c.label)) for c in clips]
    named = f"{counted(changed, 'label')} changed by labels={file.name}"
    if left_out:
        named += f", which leaves out {counted(left_out, 'clip')}"
    said = [named]
    if unused:
        said.append(
            f"{counted(unused, 'correction')} of {BACKGROUND} in labels={file.name} "
            "not used: with these settings, the background is cut at other places"
        )
    return [clip for clip in found if clip.label], said
