"""Annotated recordings: Raven selection tables, and the sounds between annotations."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.folder import prepare
from spaudio.audio import SourceClips
from spaudio.audio.selections import read_selections
from spaudio.errors import ConfigError, DataError
from spaudio.inference.events import Event, Recording, as_raven
from tests.fixtures.annotated import EVENTS, HEADER, make_recordings, make_selections
from tests.fixtures.tiny_audio import run_script


def listed(source: Path, table: Path, **options: object) -> SourceClips:
    work = source.parent / "work"
    return prepare(work, source=str(source), table=str(table), **options)  # type: ignore[arg-type]


def parts(clips: SourceClips, label: str) -> set[tuple[str, float, float]]:
    """Recording, start and end of the clips of a class."""
    found = set()
    for clip in clips.clips:
        if clip.label == label:
            start, end = Path(clip.path).stem.split("-")
            found.add((str(Path(clip.path).parent), float(start), float(end)))
    return found


def test_selection_tables_give_intervals(tmp_path: Path) -> None:
    """One table per recording, which is found by the table's name or by the column Begin File."""
    source, tables = make_recordings(tmp_path / "source"), tmp_path / "tables"
    for name in "abc":
        make_selections(tables / f"{name}.Table.1.selections.txt")
    ours = Recording(Path("d.wav"), 10, [Event(*event, 0.9) for event in EVENTS])
    (tables / "mine.txt").write_text(as_raven(ours, 4000), encoding="utf-8")
    (tables / "notes.txt").write_text("no table\n")
    found = listed(source, tables)
    expected = {(f"{n}.wav", *event[:2]) for n in "abcd" for event in EVENTS if event[2] == "wren"}
    assert parts(found, "wren") == expected
    assert len(found.clips) == 12  # each selection once
    assert len({(clip.group, clip.split) for clip in found.clips}) == 4


def test_selections_of_joined_recordings_have_offsets(tmp_path: Path) -> None:
    """Times of a view of several files count from the first; File Offset counts from each."""
    source = make_recordings(tmp_path / "source", ["x/a", "y/a", "b", "c"])
    rows = [
        ("a.wav", "D:\\site\\x\\a.wav", 1, 1.5, "1.0", "wren"),
        ("a.wav", "D:\\site\\y\\a.wav", 12, 12.25, "2.0", "wren"),
        ("b.wav", "", 23, 24, "3.0", "wren"),
        *(("c.wav", "", 31 + n, 31.5 + n, f"{1 + n}.0", "robin") for n in range(3)),
    ]
    header = ["Begin File", "Begin Path", "Begin Time (s)", "End Time (s)", "File Offset (s)"]
    for columns in (5, 4):
        # Recordings of the same name in two folders are two, too.
        chosen = rows if columns == 5 else rows[:2]
        lines = [[*header[:columns], "Annotation"]]
        lines += [[*map(str, row[:columns]), row[5]] for row in chosen]
        table = tmp_path / "all.txt"
        table.write_text("\n".join("\t".join(line) for line in lines), encoding="utf-8")
        if columns == 4:
            with pytest.raises(DataError, match=r"of 2 recordings.*export the column File Offset"):
                listed(source, table)
        else:
            expected = {("x/a.wav", 1.0, 1.5), ("y/a.wav", 2.0, 2.25), ("b.wav", 3.0, 4.0)}
            assert parts(listed(source, table), "wren") == expected


def test_selection_tables_may_give_splits_and_groups(tmp_path: Path) -> None:
    source, table = make_recordings(tmp_path / "source", ["a"]), tmp_path / "a.txt"
    lines = make_selections(table, [(n, n + 0.5, "xy"[n % 2]) for n in range(10)]).read_text()
    more = ["Split\tGroup", *(f"{'test' if n > 5 else 'train'}\t{n}" for n in range(10))]
    rows = lines.splitlines()
    rows = [rows[0], *rows[2::2]]  # of one view
    table.write_text("\n".join(f"{row}\t{cells}" for row, cells in zip(rows, more, strict=True)))
    found = {(clip.group, clip.split) for clip in listed(source, table).clips}
    assert found == {(str(n), "test" if n > 5 else "train") for n in range(10)}
    make_selections(tmp_path / "b.txt")
    make_recordings(source, ["b"])
    with pytest.raises(
        DataError, match=r"b\.txt, line 3: this table and that of .*a\.txt, line 2 do"
    ):
        listed(source, tmp_path)


def test_each_recording_may_number_its_selections_from_one(tmp_path: Path) -> None:
    """Selections of the waveform alone are no second view of those of another recording."""
    source, table = make_recordings(tmp_path / "source"), tmp_path / "all.txt"
    lines = [f"{HEADER}\tBegin File\tFile Offset (s)"]
    for name, view in zip("abcd", ("Waveform 1", *["Spectrogram 1"] * 3), strict=True):
        for number, (start, end, label) in enumerate(EVENTS, start=1):
            lines.append(f"{number}\t{view}\t1\t{start}\t{end}\t{label}\t{name}.wav\t{start}")
    table.write_text("\n".join(lines))
    assert len(listed(source, table).clips) == 12


def test_recordings_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "source", ["x", "day/x", "night/x"])
    tables = tmp_path / "tables"
    for folder in ("day", "night"):
        events = [(n, n + 0.5, ("robin", "wren")[n % 2]) for n in range(6)]
        make_selections(tables / folder / "x.txt", events if folder == "day" else [])
    (tables / "mine.txt").write_text(
        f"{HEADER}\tBegin File\tBegin Path\n"
        + "\n".join(
            f"{n}\tS 1\t1\t{n}\t{n}.5\t{('robin', 'wren')[n % 2]}\tx.wav\tD:\\rec\\x.wav"
            for n in range(6)
        )
    )
    found = listed(source, tables, valid_fraction=0.0)
    assert {clip.group for clip in found.clips} == {"day/x.wav", "x.wav"}
    assert not found.warnings  # night/x.wav was searched, and nothing found
    make_selections(tables / "deep" / "x.txt")
    with pytest.raises(DataError, match=r"may be any of .*put the table into a folder with"):
        listed(source, tables)


def test_every_table_of_a_folder_is_read_and_other_files_are_named(tmp_path: Path) -> None:
    source, tables = make_recordings(tmp_path / "source"), tmp_path / "tables"
    make_selections(tables / "a.TXT")
    make_selections(tables / "b.txt")
    make_selections(tmp_path / "more" / "c.txt")
    (tables / "linked").symlink_to(tmp_path / "more")
    (tables / "loop").symlink_to(tables)
    (tables / "notes.txt").write_text("no table\n")
    said = listed(source, tables).warnings
    assert said[0] == "not in table=tables: 1 audio file: d.wav"
    assert said[1] == "left out, as not selection tables: 1 *.txt file: notes.txt"
    wide = tables / "b.txt"
    wide.write_text(wide.read_text(), encoding="utf-16")
    with pytest.raises(ConfigError, match=r"b\.txt is not in UTF-8; save it in UTF-8"):
        listed(source, tables)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.txt",
            HEADER.replace("Species", "Song") + "\n1\tS 1\t1\t0\t1\tx",
            "rename the one that",
        ),
        ("a.txt", f"{HEADER}\n1\tS 1\t1\t0\tsoon\twren", "line 2: start is '0' and end is 'soon'"),
        ("a.txt", f"{HEADER}\n1\tS 1\t1\t0\t1\t", "line 2: .* has no label"),
        ("e.txt", f"{HEADER}\n1\tS 1\t1\t0\t1\twren", "name the table after its recording"),
        (
            "a.txt",
            HEADER.replace("End Time (s)", "") + "\n1\tS 1\t1\t0\t1\tx",
            "no column End Time",
        ),
    ],
)
def test_selection_tables_that_do_not_fit_are_named(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    source = make_recordings(tmp_path / "source")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        listed(source, tmp_path / name)


def test_a_folder_without_selection_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder without Raven selection tables"):
        listed(make_recordings(tmp_path / "source"), tmp_path)


def test_the_background_is_cut_between_annotations(tmp_path: Path) -> None:
    """It touches no event and no silence, and stays in the split of its recording."""
    source, tables = make_recordings(tmp_path / "source", "abcdef"), tmp_path / "tables"
    for name in "abcde":
        make_selections(tables / f"{name}.txt")
    make_selections(tables / "f.txt", [])  # searched, and nothing found
    prepared = run_script(
        prepare, tmp_path, source=source, table=str(tables), background=str(source)
    )
    assert prepared.labels == ("_background_", "robin", "wren")
    clips = [clip for clip in prepared.clips if clip.label == "_background_"]
    assert 12 <= len(clips) <= 15  # as many as events; silent ones are left out
    for clip in clips:
        start, end = map(float, Path(clip.path).stem.split("-"))
        assert round(end - start, 3) == 0.5
        events = [] if clip.path.startswith("f.wav") else EVENTS
        assert all(end <= event[0] or start >= event[1] for event in events)
    assert len({(clip.group, clip.split) for clip in prepared.clips if clip.group != "f.wav"}) == 5
    other = listed(source, tables, background=str(source), split_seed=1)
    assert parts(other, "_background_") != parts(
        listed(source, tables, background=str(source)), "_background_"
    )


def test_the_background_of_a_given_split_follows_it(tmp_path: Path) -> None:
    source, table = make_recordings(tmp_path / "source", ["a"]), tmp_path / "a.csv"
    lines = [
        f"a.wav,{n},{n + 0.25},{'xy'[n % 2]},{'test' if n > 5 else 'train'}" for n in range(10)
    ]
    lines = [f"{line},{line.rpartition(',')[2]}" for line in lines]  # a group for each split
    table.write_text("\n".join(["file_name,start,end,label,split,group", *lines]), encoding="utf-8")
    found = listed(source, table, background=str(source))
    for clip in found.clips:
        middle = sum(map(float, Path(clip.path).stem.split("-"))) / 2
        assert clip.split == ("test" if middle > 5.625 else "train")
    assert "split_seed" not in found.unused
    # The end of an annotation counts, not its middle.
    events = [(0, 5), (1, 2), (7, 7.25), (8, 8.25), (9, 9.25), (9.5, 9.75)]
    splits = ["test", "test", *["train"] * 4]
    lines = [f"a.wav,{start},{end}," for start, end in events]
    lines = [f"{line}{'xy'[n % 2]},{splits[n]},{splits[n]}" for n, line in enumerate(lines)]
    table.write_text("\n".join(["file_name,start,end,label,split,group", *lines]), encoding="utf-8")
    for seed in range(5):
        clips = listed(source, table, background=str(source), split_seed=seed).clips
        for clip in (clip for clip in clips if clip.label == "_background_"):
            start, end = map(float, Path(clip.path).stem.split("-"))
            assert clip.split == ("test" if start - 5 < 7 - end else "train")
    lines = [
        f"a.wav,0,{9.9 + n / 100},{'xy'[n % 2]},{('train', 'test')[n > 3]},{n}" for n in range(6)
    ]
    table.write_text("\n".join(["file_name,start,end,label,split,group", *lines]))
    with pytest.raises(DataError, match=r"recordings have no 9\.\d+ s without an annotation"):
        prepare(tmp_path / "w", source=str(source), table=str(table), background=str(source))


def test_each_split_has_as_much_background_as_annotations(tmp_path: Path) -> None:
    """Recordings of the test split may be longer than all others."""
    source, table = tmp_path / "source", tmp_path / "a.csv"
    source.mkdir()
    rng, lines = np.random.default_rng(0), ["file_name,start,end,label,split"]
    for name, split, seconds in (("a", "train", 10), ("b", "valid", 10), ("c", "test", 200)):
        soundfile.write(source / f"{name}.wav", 0.1 * rng.normal(size=seconds * 4000), 4000)
        lines += [f"{name}.wav,{n},{n + 0.25},{'xy'[n % 2]},{split}" for n in range(6)]
    table.write_text("\n".join(lines))
    found = listed(source, table, background=str(source))
    counts = Counter(clip.split for clip in found.clips if clip.label == "_background_")
    assert counts == {"train": 6, "valid": 6, "test": 6}
    busy = [f"a.wav,{n / 4},{n / 4 + 0.25},{'xy'[n % 2]},train" for n in range(40)]
    table.write_text("\n".join([lines[0], *busy, *lines[7:]]))
    with pytest.raises(DataError, match=r"the training split have no 0\.25 s without an"):
        listed(source, table, background=str(source))


def test_a_recording_that_cannot_be_read_takes_no_place_of_the_background(tmp_path: Path) -> None:
    source, tables = make_recordings(tmp_path / "source", "abcdefg"), tmp_path / "tables"
    for name in "abcdefg":
        make_selections(tables / f"{name}.txt")
    for name in "efg":
        (source / f"{name}.wav").write_bytes(b"no audio")
    found = listed(source, tables, background=str(source))
    assert len(parts(found, "_background_")) == 18  # of 21, as many as events; 3 are silent


def test_the_background_of_recordings_without_events_has_their_groups(tmp_path: Path) -> None:
    names = [f"{site}_{day}" for site in "xyz" for day in (1, 2)]
    source, tables = make_recordings(tmp_path / "source", names), tmp_path / "tables"
    for name in names:
        make_selections(tables / f"{name}.txt", EVENTS if name.endswith("1") else [])
    found = listed(source, tables, background=str(source), group_regex="([xyz])_")
    assert any(clip.path.startswith(("x_2", "y_2", "z_2")) for clip in found.clips)
    assert {clip.group for clip in found.clips} == set("xyz")


def test_the_background_of_recordings_without_events_is_in_the_split_of_their_group(
    tmp_path: Path,
) -> None:
    names = [f"{site}_{day}" for site in "xyz" for day in (1, 2)]
    source, tables = make_recordings(tmp_path / "source", names), tmp_path / "tables"
    splits = {"x": "train", "y": "valid", "z": "test"}
    for site, split in splits.items():
        make_selections(tables / f"{site}_2.txt", [])
        table = make_selections(tables / f"{site}_1.txt")
        header, *rows = table.read_text().splitlines()
        table.write_text("\n".join([f"{header}\tSplit", *(f"{row}\t{split}" for row in rows)]))
    clips = [
        clip
        for seed in range(4)
        for clip in listed(
            source, tables, background=str(source), group_regex="([xyz])_", split_seed=seed
        ).clips
    ]
    assert {clip.path[:3] for clip in clips} >= {"x_2", "y_2", "z_2"}
    assert all(clip.split == splits[clip.path[0]] for clip in clips)


def test_a_background_of_silence_alone_is_refused(tmp_path: Path) -> None:
    source, tables = make_recordings(tmp_path / "source", "abc"), tmp_path / "tables"
    for name in "abc":
        make_selections(tables / f"{name}.txt")
        wave, rate = soundfile.read(source / f"{name}.wav")
        seconds = np.arange(len(wave)) / rate
        wave *= sum((start <= seconds) & (seconds < end) for start, end, _ in EVENTS)
        soundfile.write(source / f"{name}.wav", wave, rate)
    with pytest.raises(DataError, match="hold only silence between their annotations"):
        listed(source, tables, background=str(source))


def test_recordings_without_events_are_no_annotated_ones(tmp_path: Path) -> None:
    """Otherwise validation and test would hold nothing but the background."""
    source, tables = make_recordings(tmp_path / "source"), tmp_path / "tables"
    for name in "abcd":
        events = [(n + 0.25, n + 0.5, ("wren", "robin")[n % 2]) for n in range(6)]
        make_selections(tables / f"{name}.txt", events if name == "a" else [])
    with pytest.raises(DataError, match="annotates 1 of the 3 recordings needed"):
        listed(source, tables, background=str(source))
    with pytest.raises(DataError, match=r"in 1 of the 3 groups needed, .*: wav; check"):
        listed(source, tables, background=str(source), group_regex=r"\w+$")


def test_one_class_is_enough_with_a_background(tmp_path: Path) -> None:
    source, tables = make_recordings(tmp_path / "source"), tmp_path / "tables"
    for name in "abcd":
        make_selections(tables / f"{name}.txt", [event for event in EVENTS if event[2] == "wren"])
    with pytest.raises(DataError, match=r"all clips have the label 'wren'.*background=RECORDINGS"):
        listed(source, tables)
    found = listed(source, tables, background=str(source))
    assert {clip.label for clip in found.clips} == {"_background_", "wren"}


def test_selections_of_a_recording_that_is_not_there_are_named(tmp_path: Path) -> None:
    """Recorders at several sites give the same names; the source may hold those of one."""
    source = make_recordings(tmp_path / "source", ["siteA/a", "siteA/b", "siteA/c"])
    tables = tmp_path / "tables"
    for name in "abc":
        make_selections(tables / "siteA" / f"{name}.txt")
    assert not any("one recording" in text for text in listed(source, tables).warnings)
    make_selections(tables / "siteB" / "a.txt", [(8.0, 8.5, "wren")])
    said = "one recording: siteA/a.wav (siteA/a.txt and siteB/a.txt); if"
    assert any(said in text for text in listed(source, tables).warnings)
    rows = [f"/data/site{site}/a.wav\t{at}\t{int(at) + 1}\t{at}\twren" for site, at in ("A1", "B8")]
    header = "Begin Path\tBegin Time (s)\tEnd Time (s)\tFile Offset (s)\tSpecies"
    (tmp_path / "all.txt").write_text("\n".join([header, *rows]), encoding="utf-8")
    notes = read_selections(tmp_path / "all.txt", ["siteA/a.wav", "siteA/b.wav"]).notes
    assert "siteA/a.wav (siteA/a.wav and siteB/a.wav)" in notes[0]


def test_silent_gaps_and_unreadable_recordings_without_events_are_named(tmp_path: Path) -> None:
    source, tables = make_recordings(tmp_path / "source", "abcdefg"), tmp_path / "tables"
    for name in "abcdef":
        make_selections(tables / f"{name}.txt")
    make_selections(tables / "g.txt", [])
    (source / "g.wav").write_bytes(b"no audio")
    found = listed(source, tables, background=str(source))
    assert list(found.bad) == ["g.wav"]
    lost = 18 - len(parts(found, "_background_"))
    assert lost
    assert f"{lost} of 18 clips of _background_ are left out" in " ".join(found.warnings)
