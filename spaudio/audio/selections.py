"""Annotations as Raven selection tables: one file per recording, or one for several."""

import codecs
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from spaudio.audio.find import composed, walk
from spaudio.errors import ConfigError, DataError, counted, some
from spaudio.io.csv_files import read_csv

_BEGIN, _END, _OFFSET = "begin time (s)", "end time (s)", "file offset (s)"
#: Columns that may hold the label, as Raven leaves their names to the user; the first is taken.
LABEL_COLUMNS = (
    "label", "annotation", "species", "class", "common name", "species code", "call type", "tag",
)  # fmt: skip


@dataclass(frozen=True)
class Selections:
    """What one or several selection tables say.

    Attributes:
        rows: For each selection, where it is written, for messages, and its ``file_name``,
            ``start``, ``end`` and ``label``, and ``split`` and ``group`` if there are such columns.
        empty: Recordings of tables without a selection.
        notes: Sentences about what in the tables is not used, or may have been meant differently.
    """

    rows: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_selections(path: Path) -> bool:
    """Whether a path is a selection table (tab-separated, with begin times), or any folder.

    False for a file that cannot be read: it is then read as a CSV file, which reports the error.
    """
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            start = file.read(2)
        # A table in UTF-16 is refused where it is read, with the remedy.
        wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace") as text:
            header = text.readline().lower()
    except OSError:
        return False
    return "\t" in header and _BEGIN in header


def read_selections(path: Path, paths: Sequence[str]) -> Selections:
    """Reads selection tables.

    The recording of a selection is its ``Begin File``. In a table without this column, it is the
    one after which the table is named: ``site1.Table.1.selections.txt`` belongs to ``site1.wav``.
    If Raven has written a line for each view of a selection, that of the waveform is left out.

    Args:
        path: A table, or a folder that holds tables at any depth, in files ``*.txt``; linked
            folders are followed.
        paths: The recordings, relative to the source.

    Raises:
        ConfigError: If a table cannot be read, or there is none.
        DataError: If a column is missing, or a recording cannot be found.
    """
    recordings = _Recordings(paths)
    tables, others = _find_tables(path) if path.is_dir() else ([path], [])
    found = _join(_read(file, recordings) for file in tables)
    if others:
        files = counted(len(others), "*.txt file")
        found.notes.append(f"left out, as not selection tables: {files}: {some(others)}")
    found.notes.extend(_several(recordings))
    return found


def _find_tables(path: Path) -> tuple[list[Path], list[str]]:
    """Returns the tables in a folder, and the names of the other ``*.txt`` files there."""
    files = sorted(
        folder / name
        for folder, _, names in walk(path)
        for name in names
        if name.lower().endswith(".txt")
    )
    tables = [file for file in files if is_selections(file)]
    if not tables:
        raise ConfigError(
            f"table={path} is a folder without Raven selection tables (*.txt, separated by tabs, "
            "with the column Begin Time (s)); name the folder that holds them, or a CSV file"
        )
    others = sorted(set(files) - set(tables))
    return tables, [file.relative_to(path).as_posix() for file in others]


class _Recordings:
    """The paths of recordings, by name and by name without extension: there may be many tables."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.by_name: defaultdict[str, list[str]] = defaultdict(list)
        self.by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            name = composed(PurePosixPath(path).name)
            self.by_name[name].append(path)
            self.by_stem[os.path.splitext(name)[0]].append(path)
        # What the selections of each come from: Begin Paths; and tables that are named after it, by
        # the number of folders above both that have the same names.
        self.begun: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.tables: defaultdict[str, dict[int, str]] = defaultdict(dict)


def _join(parts: Iterable[Selections]) -> Selections:
    every = Selections()
    for part in parts:
        if every.rows and part.rows and every.rows[0][1].keys() != part.rows[0][1].keys():
            raise DataError(
                f"{part.rows[0][0]}: this table and that of {every.rows[0][0]} do not both have "
                "the columns Split and Group; add them to all tables, or to none"
            )
        every.rows.extend(part.rows)
        every.empty.extend(part.empty)
        every.notes.extend(note for note in part.notes if note not in every.notes)
    return every


def _read(file: Path, recordings: _Recordings) -> Selections:
    """Reads one table."""
    rows, name = read_csv("table", file, delimiter="\t"), f"table={file}"
    if not rows:
        return Selections(empty=[_of_table(file, recordings)])
    columns = [str(column) for column in rows[0][1]]
    if _END not in columns:
        raise DataError(f"{name} has no column End Time (s); export it from Raven too")
    labels = [column for column in LABEL_COLUMNS if column in columns]
    if not labels:
        raise DataError(
            f"{name} has no column of labels, which may be named {', '.join(LABEL_COLUMNS)}; it "
            f"has {some(columns)}; rename the one that holds them to Label"
        )
    more = f"labels are from the column {labels[0]!r}, not from {some(labels[1:])}"
    notes = [f"{more}; rename the column to use to Label"] if labels[1:] else []
    files = {_begin(row) for _, row in rows}
    if len(files) > 1 and _OFFSET not in columns:
        raise DataError(
            f"{name} has selections of {len(files)} recordings, whose times may run on from one to "
            "the next; export the column File Offset (s) too, or one table per recording"
        )
    drawn = {_selection(row) for _, row in rows if not _is_waveform(row)}
    named: dict[tuple[str, str], str] = {}  # recordings, by what the table says of the file
    found = []
    for number, row in rows:
        if "selection" in columns and _is_waveform(row) and _selection(row) in drawn:
            continue
        where = f"{file}, line {number}"
        start, end = _times(row)
        key = _begin(row)
        if key not in named:
            begin = (key[0] or key[1]).strip()
            named[key] = (
                _named(begin, key[1], recordings, where) if begin else _of_table(file, recordings)
            )
            if written := key[1].strip():
                recordings.begun[named[key]][written] = _end(written)
            elif not begin:
                alike = _shared(file.absolute(), named[key])
                recordings.tables[named[key]][alike] = _end(os.fspath(file))
        label = row[labels[0]] or ""
        cells = {"file_name": named[key], "start": start, "end": end, "label": label}
        cells |= {key: row[key] or "" for key in ("split", "group") if key in columns}
        found.append((where, cells))
    return Selections(found, [], notes)


def _begin(row: dict[str, str]) -> tuple[str, str]:
    """Returns what a selection says of its recording: Begin File and Begin Path."""
    return row.get("begin file") or "", row.get("begin path") or ""


def _selection(row: dict[str, str]) -> tuple[str, ...]:
    """Returns the number of a selection and its recording, as each may begin with 1."""
    return (row.get("selection") or "", *_begin(row))


def _is_waveform(row: dict[str, str]) -> bool:
    return (row.get("view") or "").lower().startswith("waveform")


def _times(row: dict[str, str]) -> tuple[str, str]:
    """Returns start and end in the recording; unchanged if they are not numbers."""
    start, end, offset = row[_BEGIN] or "", row[_END] or "", row.get(_OFFSET) or ""
    try:
        if offset.strip():
            return offset, repr(float(offset) + float(end) - float(start))
    except ValueError:
        pass
    return start, end


def _end(path: str) -> str:
    """Returns the name of a file with its folder; reports show no other folders of the machine."""
    return "/".join(PureWindowsPath(path).parts[-2:])  # which also divides at slashes


def _several(recordings: _Recordings) -> list[str]:
    """Returns a sentence with the recordings that tables seem to mistake for others, if any."""
    sources: list[Mapping[str, Mapping[Any, str]]] = [recordings.begun, recordings.tables]
    several = [
        f"{name} ({' and '.join([*places.values()][:2])})"
        for found in sources
        for name, places in sorted(found.items())
        if len(places) > 1
    ]
    if not several:
        return []
    return [
        "selections that seem to be of several files of one name are taken as those of one "
        f"recording: {some(several)}; if the source lacks the others, such as those of another "
        "site, remove their selections, or name the folder that holds all of them"
    ]


def _named(begin: str, path: str, recordings: _Recordings, where: str) -> str:
    """Returns the recording with the name of a selection's file; its path tells several apart."""
    name = composed(PureWindowsPath(begin).name)  # which also divides at slashes
    found = recordings.by_name.get(name, [])
    if len(found) > 1:  # the folders tell them apart; the longest path is the nearest
        whole = composed(path.replace("\\", "/"))
        fits = [one for one in found if f"/{whole}".endswith(f"/{composed(one)}")]
        found = [max(fits, key=len)] if fits else found
    if not found:
        raise DataError(
            f"{where}: there is no recording {name!r} below the source; name the folder that holds "
            "it, or rename it as in the table"
        )
    return _only(found, where, "export the column Begin Path too")


def _of_table(file: Path, recordings: _Recordings) -> str:
    """Returns the recording that a table is named after; of several, the longest name.

    Of recordings of the same name, it is the one whose folders are named most like the table's.
    """
    table = composed(file.name)
    heads = [table[:place] for place, sign in enumerate(table) if sign == "."][::-1]
    places = (recordings.by_name, recordings.by_stem)
    found = next((known[head] for known in places for head in heads if head in known), [])
    if not found:
        raise DataError(
            f"table={file}: there is no recording of this name below the source; name the table "
            "after its recording, such as site1.Table.1.selections.txt for site1.wav, or export "
            "the column Begin File too"
        )
    alike = {path: _shared(file.absolute(), path) for path in found}
    found = [path for path in found if alike[path] == max(alike.values())]
    remedy = "put the table into a folder with the name of the recording's"
    return _only(found, f"table={file}", remedy)


def _shared(table: Path, recording: str) -> int:
    """Returns the number of folders above a table and a recording that have the same names."""
    pairs = zip(
        reversed(table.parent.parts), reversed(PurePosixPath(recording).parent.parts), strict=False
    )
    return len([*takewhile(lambda pair: composed(pair[0]) == composed(pair[1]), pairs)])


def _only(found: Sequence[str], where: str, remedy: str) -> str:
    if len(found) > 1:
        raise DataError(
            f"{where}: the recording may be any of {some(found)}; give them different names, or "
            f"{remedy}"
        )
    return found[0]
