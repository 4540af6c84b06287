"""Annotated events of recordings, which detected ones are compared with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spaudio.audio.decode import probe
from spaudio.audio.find import is_audio
from spaudio.audio.intervals import ROUNDING
from spaudio.audio.label_table import read_labelled_intervals
from spaudio.audio.manifest import class_names, is_nothing
from spaudio.errors import AudioError, DataError, some
from spaudio.inference.events import Event


@dataclass(frozen=True)
class Annotations:
    """What a table says about recordings.

    Attributes:
        events: The events of each recording that it names, by the path of its file.
        labels: The classes to score: those of the model that are events.
        notes: What is not scored, in sentences.
    """

    events: dict[Path, list[Event]]
    labels: list[str]
    notes: list[str]


def read_annotations(
    table: Path,
    paths: Sequence[Path],
    files: Sequence[Path],
    classes: Sequence[str],
    *,
    multi_label: bool = False,
) -> Annotations:
    """Reads the annotations of recordings.

    Args:
        table: As in `read_labelled_intervals`. Names in a CSV file are relative to the
            folder in ``paths`` if it is the only path, else to the folder that holds all files.
        paths: Files and folders as the user named them.
        files: The recordings among and in them.
        classes: The model's classes. Those between underscores, such as ``_background_``, are not
            scored.
        multi_label: Whether a label of the table may be several classes, separated by commas.

    Raises:
        ConfigError: If the table cannot be read.
        DataError: If a line does not fit, an annotation ends after its recording, no recording is
            in the table, or no label is one of the classes.
    """
    folders = [os.path.abspath(path if path.is_dir() else path.parent) for path in paths]
    root = os.path.commonpath(folders)
    # A table may name more recordings than are scored: those beside the files.
    beside = [
        file for one in {path.parent for path in paths if path.is_file()} for file in one.iterdir()
    ]
    by_name = {
        Path(os.path.relpath(file, root)).as_posix(): file
        for file in [*files, *(file for file in beside if is_audio(file.name))]
    }
    found, notes = read_labelled_intervals(table, Path(os.path.realpath(root)), list(by_name))
    scored = [label for label in classes if not is_nothing(label)]
    events: dict[Path, list[Event]] = {}
    unknown: set[str] = set()
    chosen = set(files)
    for name, intervals in found.items():
        if by_name[name] not in chosen:
            continue
        annotated = events.setdefault(by_name[name], [])
        for one, written in intervals:
            for label in class_names(written, multi_label):
                if label in scored:
                    annotated.append(Event(one.start, one.end, label, 1.0))
                elif not is_nothing(label):
                    unknown.add(label)
    events = {file: _within(file, annotated) for file, annotated in events.items()}
    if unknown and not any(events.values()):
        raise DataError(
            f"{table} has the labels {some(sorted(unknown))}, none of which is a class of the "
            f"model ({some(scored)}); rename them"
        )
    unlisted = [name for name, file in by_name.items() if file in chosen and file not in events]
    if len(unlisted) == len(files):
        raise DataError(
            f"{table} names none of the recordings ({some(unlisted)}); name the table of these "
            "recordings, or leave it out"
        )
    if unlisted:
        notes.append(f"{some(unlisted)}: not in {table}, so not scored")
    if unknown:
        notes.append(f"{some(sorted(unknown))}: labels of {table} that the model does not know")
    return Annotations(events, scored, notes)


def _within(file: Path, annotated: Sequence[Event]) -> list[Event]:
    """Returns events that end with their recording at the latest.

    Its length is the one that the header declares. An event may end a little later, as rounding
    does; what lies after the end is dropped.

    Raises:
        DataError: If one ends clearly after it.
    """
    try:
        seconds = probe(file).seconds
    except AudioError:  # `detect` gives the reason
        return list(annotated)
    if late := [event for event in annotated if event.end > seconds + ROUNDING]:
        raise DataError(
            f"{some([f'{event.start:g}-{event.end:g} s' for event in late])} of the annotations of "
            f"{file} end after the recording, which is {seconds:.3f} s long; correct the table, or "
            "name the table of this recording"
        )
    return [
        replace(event, end=min(event.end, seconds)) for event in annotated if event.start < seconds
    ]
