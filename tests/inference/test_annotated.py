"""Annotations that detected events are compared with."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spaudio.cli import main
from spaudio.errors import DataError
from spaudio.inference.annotated import read_annotations
from spaudio.inference.events import Event

CLASSES = ("owl", "dog", "cat", "_background_")


def recordings(folder: Path) -> list[Path]:
    files = [folder / "night" / name for name in ("a.wav", "b.wav", "c.wav")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def test_classes_and_recordings_that_cannot_be_scored_are_named(tmp_path: Path) -> None:
    files = recordings(tmp_path)
    table = tmp_path / "events.csv"
    table.write_text(
        "file_name,start,end,label\nnight/a.wav,1,2,owl\nnight/a.wav,3,4,fox\n"
        "night/b.wav,0,2,dog\nnight/b.wav,5,6,_noise_\n"
    )
    found = read_annotations(table, [tmp_path], files, CLASSES)
    assert found.events == {
        files[0]: [Event(1, 2, "owl", 1.0)],
        files[1]: [Event(0, 2, "dog", 1.0)],
    }
    assert found.labels == ["owl", "dog", "cat"]
    assert [note.split(":")[0] for note in found.notes] == ["night/c.wav", "fox"]
    # Without a folder that was named, names are relative to the one that holds all files.
    table.write_text("file_name,start,end,label\nb.wav,0,2,dog\na.wav,0,2,owl\n")
    assert list(read_annotations(table, files[1:], files[1:], CLASSES).events) == [files[1]]
    with pytest.raises(DataError, match=r"names none of the recordings \(c.wav\)"):
        read_annotations(table, files[2:], files[2:], CLASSES)


def test_annotations_of_another_recording_are_refused(tmp_path: Path) -> None:
    table, file = tmp_path / "events.csv", tmp_path / "a.wav"
    soundfile.write(file, np.full(8000, 0.1), 8000)
    table.write_text("file_name,start,end,label\na.wav,0.5,1.05,owl\n")  # as if rounded
    assert read_annotations(table, [file], [file], CLASSES).events == {
        file: [Event(0.5, 1.0, "owl", 1.0)]  # there is no segment after the end
    }
    table.write_text("file_name,start,end,label\na.wav,0.5,1.2,owl\n")
    with pytest.raises(DataError, match=r"0.5-1.2 s of the annotations of .*a.wav end after"):
        read_annotations(table, [file], [file], CLASSES)


def test_labels_may_be_several_classes_only_for_a_model_of_several(tmp_path: Path) -> None:
    [file, *_] = recordings(tmp_path)
    table = tmp_path / "events.csv"
    table.write_text('file_name,start,end,label\na.wav,0,2,"dog,owl"\n')
    found = read_annotations(table, [file], [file], CLASSES, multi_label=True)
    assert [event.label for event in found.events[file]] == ["dog", "owl"]
    with pytest.raises(DataError, match=r"labels dog,owl, none of which is a class of the model"):
        read_annotations(table, [file], [file], CLASSES)


def test_a_recording_with_an_empty_selection_table_holds_no_event(tmp_path: Path) -> None:
    files = recordings(tmp_path)
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("a", "b"):
        (tables / f"{name}.Table.1.selections.txt").write_text(
            "Selection\tBegin Time (s)\tEnd Time (s)\tLabel\n"
        )
    found = read_annotations(tables, [tmp_path], files, CLASSES)
    assert found.events == {files[0]: [], files[1]: []}


def test_labels_of_whole_files_are_refused(tmp_path: Path) -> None:
    files = recordings(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text("file_name,label\nnight/a.wav,owl\n")
    with pytest.raises(DataError, match="labels whole files; give the times of events"):
        read_annotations(table, [tmp_path], files, CLASSES)


def test_detect_prints_scores_after_the_events(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The events of a first call are the annotations of a second, so it finds all of them."""
    clip = sorted((own_run.parents[2] / "sounds").glob("*/theo_*.flac"))[0]
    file = tmp_path / "a.wav"
    soundfile.write(file, soundfile.read(clip)[0], 8000)
    detect = ["detect", str(own_run), str(file), "--threshold", "0.01"]
    main([*detect, "--format", "raven", "--output", str(tmp_path / "a.wav.raven.txt")])
    main(detect)
    events = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    main([*detect, "--table", str(tmp_path / "a.wav.raven.txt")])
    out, err = capsys.readouterr()
    assert list(csv.DictReader(out.splitlines())) == events
    assert "(recordings: 1, hours: 0.00, threshold: 0.01)" in err
    first, _, others = err.rstrip().partition("All classes at other thresholds")
    assert len([line for line in others.splitlines() if line.startswith("│")]) == 10
    last = first.rstrip().splitlines()[-2].split()[1:]  # that of all classes, or of the only one
    number = str(len(events))
    assert [cell for cell in last if cell != "│"][-8:] == [
        number, number, number, "0", "0.00", "1.000", "1.000", "1.000",
    ]  # fmt: skip
