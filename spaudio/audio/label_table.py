"""Labels of clips from a table: of whole files, or of intervals of recordings."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spaudio.audio.decode import MAX_SECONDS
from spaudio.audio.find import composed, path_finder
from spaudio.audio.intervals import Interval
from spaudio.audio.manifest import SPLIT_NAMES, SourceClip
from spaudio.audio.selections import Selections, is_selections, read_selections
from spaudio.errors import DataError, some
from spaudio.io.csv_files import read_csv

_COLUMNS = ("file_name", "label", "start", "end", "split", "group")


@dataclass(frozen=True)
class LabelTable:
    """The contents of a table of labels.

    Attributes:
        clips: The clips. Without a column ``group``, the group of each is its audio file.
        columns: The columns of the table.
        intervals: The intervals that the clips are to be cut from; none if the clips are files.
        unlisted: Audio files that are not in the table.
        empty: Recordings of selection tables without a selection.
        notes: On how the table was read, in sentences.
    """

    clips: list[SourceClip]
    columns: frozenset[str]
    intervals: list[Interval]
    unlisted: list[str]
    empty: list[str]
    notes: list[str]


def read_label_table(file: Path, root: Path, paths: Sequence[str]) -> LabelTable:
    """Reads the labels of clips from a CSV file, or from Raven selection tables.

    Args:
        file: CSV with the columns ``file_name``, a path relative to the source or an absolute one
            below it, and ``label``, as in Hugging Face's AudioFolder. Optional columns: ``start``
            and ``end``, in seconds, for labels of intervals of recordings; ``split``, with one of
            `SPLIT_NAMES` in every line; and ``group``. Or a selection table, or a folder of them;
            see `spaudio.audio.selections`.
        root: Folder of the source, without links in its path.
        paths: The audio files below it, relative to it.

    Raises:
        ConfigError: If the file cannot be read.
        DataError: If a column is missing, or a line does not fit; the message gives its number.
    """
    given = _given(file, paths)
    columns = _columns(file, given)
    cut, find = "start" in columns, _finder(root, paths)
    clips, intervals = dict[str, SourceClip](), list[Interval]()
    for where, row in given.rows:
        label, split, group = ((row.get(key) or "").strip() for key in ("label", "split", "group"))
        recording = path = find(where, row)
        if cut:
            intervals.append(_interval(path, row, where))
            path = intervals[-1].path
        if path in clips:
            raise DataError(f"{where}: {path} is also in a line above; keep one of them")
        if not label:
            raise DataError(f"{where}: {path} has no label; give it one, or remove the line")
        if "split" in row and split.lower() not in SPLIT_NAMES:
            raise DataError(
                f"{where}: split is {split!r}; expected train, valid or test in every line"
            )
        if "group" in row and not group:
            raise DataError(f"{where}: {path} has no group; give it one, as in all other lines")
        split = SPLIT_NAMES[split.lower()] if split else "train"
        clips[path] = SourceClip(path, composed(label), split, composed(group) or recording)
    splits = {clip.split for clip in clips.values()}
    if "split" in columns and not {"train", "test"} <= splits:
        there = ", ".join(sorted(splits))
        raise DataError(f"table={file}: the column split needs both train and test; it has {there}")
    used = {one.recording for one in intervals} if cut else set(clips)
    unlisted = sorted(set(paths) - used - set(given.empty))
    notes = [*given.notes, *([] if is_selections(file) else _unknown_columns(file, given))]
    return LabelTable(list(clips.values()), columns, intervals, unlisted, given.empty, notes)


def read_labelled_intervals(
    file: Path, root: Path, paths: Sequence[str]
) -> tuple[dict[str, list[tuple[Interval, str]]], list[str]]:
    """Reads labelled intervals of recordings, of which several may be the same but for the label.

    Args:
        file: As in `read_label_table`, with intervals; the columns ``split`` and ``group`` are not
            used.
        root: As in `read_label_table`.
        paths: As in `read_label_table`.

    Returns:
        For each recording that the table names, its intervals, each with its label (none if its
        selection table has no selection); and notes on how the table was read, in sentences.

    Raises:
        ConfigError: If the file cannot be read.
        DataError: If a column is missing, or a line does not fit; the message gives its number.
    """
    given = _given(file, paths)
    if not given.empty and "start" not in _columns(file, given):
        raise DataError(
            f"table={file} labels whole files; give the times of events, in the columns start and "
            "end"
        )
    find = _finder(root, paths)
    found: dict[str, list[tuple[Interval, str]]] = {name: [] for name in given.empty}
    for where, row in given.rows:
        one = _interval(find(where, row), row, where)
        if not (label := (row["label"] or "").strip()):
            raise DataError(f"{where} has no label; give it one, or remove the line")
        found.setdefault(one.recording, []).append((one, composed(label)))
    return found, given.notes


def _given(file: Path, paths: Sequence[str]) -> Selections:
    """Returns the rows of a table of any kind."""
    if is_selections(file):
        return read_selections(file, paths)
    return Selections([(f"{file}, line {number}", row) for number, row in read_csv("table", file)])


def _unknown_columns(file: Path, given: Selections) -> list[str]:
    """Returns a sentence with the columns that are not read, which may be times or splits."""
    unknown = [
        name
        for name in given.rows[0][1]
        if name not in ("", *_COLUMNS) and not name.startswith("unnamed:")  # an index of pandas
    ]
    if not unknown:
        return []
    return [
        f"table={file.name} has columns that are not read: {some(unknown)}. Read are "
        f"{', '.join(_COLUMNS)}; rename those that are meant"
    ]


def _columns(file: Path, given: Selections) -> frozenset[str]:
    """Returns the columns of a table, which are those of its first row."""
    columns = [str(key) for key in given.rows[0][1]] if given.rows else []
    if not {"file_name", "label"} <= set(columns):
        raise DataError(
            f"table={file} needs the columns file_name and label, separated by commas, and may "
            f"have start and end, split and group; it has {some(columns) or 'no line'}. A Raven "
            "selection table, separated by tabs, needs Begin Time (s) and End Time (s)"
        )
    if ("start" in columns) != ("end" in columns):
        raise DataError(
            f"table={file} has only one of the columns start and end; give both or neither"
        )
    return frozenset(columns)


def _finder(root: Path, paths: Sequence[str]) -> Callable[[str, dict[str, str]], str]:
    """Returns a function that finds the audio file that a row names."""
    find = path_finder(paths)

    @cache
    def linked() -> dict[str, str]:  # a file below a linked folder is listed at one of its paths
        return {os.path.realpath(root / path): path for path in paths}

    def audio_file(where: str, row: dict[str, str]) -> str:
        written = (row["file_name"] or "").strip()
        below = _below(root, written)
        path = find(below) or linked().get(os.path.realpath(root / below))
        if path is None and os.path.isabs(below):
            raise DataError(
                f"{where}: {written!r} is outside the source, {root}; name files below it, or "
                "another source="
            )
        if path is None:
            raise DataError(
                f"{where}: there is no audio file {written!r} below the source; give its path "
                "relative to it, with the extension"
            )
        return path

    return audio_file


def _below(root: Path, written: str) -> str:
    """Returns an absolute path below the root relative to it, and any other path as it is."""
    if not os.path.isabs(written):
        return written
    folder, name = os.path.split(written)
    for path in (Path(written), Path(os.path.realpath(folder), name)):  # the latter without links
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return written


def _interval(recording: str, row: dict[str, str], where: str) -> Interval:
    """Reads the times of an interval, which are rounded to milliseconds."""
    start, end = row["start"], row["end"]
    try:
        found = Interval(recording, round(float(start), 3), round(float(end), 3), where)
    except (TypeError, ValueError):
        found = Interval(recording, math.nan, math.nan, where)
    if not 0 <= found.start < found.end < math.inf:
        raise DataError(
            f"{where}: start is {start!r} and end is {end!r}; expected seconds since the start of "
            "the recording, such as 1.25 and 2.5, with start before end"
        )
    if found.end - found.start > MAX_SECONDS:  # before it is held in memory
        raise DataError(
            f"{where}: the interval from {start} to {end} s is longer than {MAX_SECONDS:g} s; "
            "divide it"
        )
    return found
