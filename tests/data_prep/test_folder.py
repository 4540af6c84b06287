import os
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from data_prep.folder import _little_training, prepare
from spaudio.audio import SourceClip, SourceClips, intervals
from spaudio.audio.corrections import correct_labels
from spaudio.audio.intervals import Interval
from spaudio.errors import AudioError, ConfigError, DataError
from spaudio.experiment.data import earlier_corrections
from tests.fixtures.tiny_audio import CLASSES, RATE, make_class_folders, run_script, tone


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_class_folders(tmp_path / "source")


def add(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(0, np.random.default_rng(0)), RATE, format="WAV")


def listed(source: Path, **options: Any) -> SourceClips:
    return prepare(source.parent / "work", source=str(source), **options)


def counts(source: SourceClips) -> Counter[tuple[str, str]]:
    return Counter((clip.label, clip.split) for clip in source.clips)


def test_every_format_and_depth_is_found_and_decodes(source: Path, tmp_path: Path) -> None:
    prepared = run_script(prepare, tmp_path, source=source)
    assert prepared.labels == tuple(sorted(CLASSES))
    assert len(prepared.clips) == 60
    suffixes = {Path(clip.path).suffix for clip in prepared.clips}
    assert suffixes == {".wav", ".flac", ".ogg", ".WAV", ".mp3", ".aiff"}
    assert sum("/deeper/" in clip.path for clip in prepared.clips) == 15


def test_the_split_is_stratified_and_depends_on_the_seed_alone(
    source: Path, tmp_path: Path
) -> None:
    first = listed(source, split_seed=1)
    shares = [("train", 14), ("valid", 2), ("test", 4)]
    assert counts(first) == {(label, split): n for label in CLASSES for split, n in shares}
    halves = counts(listed(source, valid_fraction=0.0, test_fraction=0.5))
    assert halves == {(label, split): 10 for label in CLASSES for split in ("train", "test")}
    moved = shutil.copytree(source, tmp_path / "moved")
    assert list(listed(moved, split_seed=1).clips) == list(first.clips)
    assert list(listed(source, split_seed=2).clips) != list(first.clips)


def test_no_group_is_in_two_splits(source: Path) -> None:
    clips = list(listed(source, group_regex=r"(g\d+)_").clips)
    assert all(clip.group == Path(clip.path).name.split("_")[0] for clip in clips)
    assert len({(clip.group, clip.split) for clip in clips}) == 5
    assert {clip.split for clip in clips} == {"train", "valid", "test"}
    # Without a capture the group is the whole match.
    assert list(listed(source, group_regex=r"g\d+").clips) == clips
    with pytest.raises(ConfigError, match="is not a regular expression"):
        listed(source, group_regex="(")
    with pytest.raises(DataError, match=r"no group in 48 of 60 paths: .* and 43 more; remove"):
        listed(source, group_regex="(g0)_")
    with pytest.raises(DataError, match="needs a group of its own, but there are 1 "):
        listed(source, group_regex="(g)")
    with pytest.raises(
        DataError, match=r"one group only \(hiss, hum, sweep\); check .* group_regex"
    ):
        listed(source, group_regex="^([^/]+)/")


def test_split_folders_are_respected(tmp_path: Path) -> None:
    root = tmp_path / "source"
    for split, number in (("Train", 3), ("val", 1), ("test", 2)):
        for index in range(number):
            add(root / split / "cat" / f"p{split}{index}.wav")
            add(root / split / "dog" / f"p{split}{index}.wav")
    shares = [("train", 3), ("valid", 1), ("test", 2)]
    found = listed(root)
    assert counts(found) == {(la, s): n for la in ("cat", "dog") for s, n in shares}
    assert "test_fraction" in found.unused
    assert list(listed(root, group_regex=r"p\w+\d").clips)
    with pytest.raises(DataError, match=r"more than one of the given splits: 0, 1"):
        listed(root, group_regex=r"p\D+(\d)")
    add(root / "bird" / "x.wav")
    with pytest.raises(DataError, match="beside them bird"):
        listed(root)
    shutil.rmtree(root / "bird")
    shutil.rmtree(root / "test")
    with pytest.raises(DataError, match="folders Train, val, which are splits, but not both"):
        listed(root)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (
            ("train/cat", "train/dog", "Eval/cat", "Eval/dog"),
            "train and Eval both hold cat, dog, so they seem to be splits; rename them to train, v",
        ),
        (
            ("cat/train", "cat/test", "dog/Train", "dog/testing"),
            "class folders cat, dog hold the folders train and test; put the classes into the spl",
        ),
        (("train/day", "train/night", "car/day", "bus/night"), ""),  # a class called train
        (("tests/train", "tests/test", "car"), ""),
    ],
)
def test_splits_that_would_become_classes_are_refused(
    tmp_path: Path, folders: tuple[str, ...], words: str
) -> None:
    for number, folder in enumerate(folders * 3):
        add(tmp_path / "source" / folder / f"{number}.wav")
    if not words:
        assert len(list(listed(tmp_path / "source").clips)) == 3 * len(folders)
        return
    with pytest.raises(DataError, match=words):
        listed(tmp_path / "source")


def test_a_random_split_is_said_to_be_one(source: Path) -> None:
    assert any("random over clips" in text for text in listed(source).warnings)
    assert not listed(source, group_regex=r"(g\d+)_").warnings
    [said] = listed(source, group_regex=r".*").warnings
    assert "random over clips, as each clip has a group of its own: " in said
    assert not listed(source).unused


def test_hidden_files_are_passed_over_and_links_followed_once(source: Path, tmp_path: Path) -> None:
    before = {clip.path for clip in listed(source).clips}
    for name in ("hum/._g0_0.wav", "__MACOSX/hum/g0_0.wav", ".cache/x.wav"):
        add(source / name)
    os.symlink(source, source / "hum" / "loop")
    assert {clip.path for clip in listed(source).clips} == before
    added = {"hum/g0_9.M4A"} | {f"train/{index}.wav" for index in range(5)}  # a class called train
    for name in added:
        add(tmp_path / "elsewhere" / name)
    shutil.move(tmp_path / "elsewhere/hum/g0_9.M4A", source / "hum")
    os.symlink(tmp_path / "elsewhere" / "train", source / "train")
    assert {clip.path for clip in listed(source).clips} == before | added


def test_an_archive_is_unpacked(source: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "plain"), "zip", source)
    (tmp_path / "outer").mkdir()
    shutil.copytree(source, tmp_path / "outer" / "my-data")
    shutil.make_archive(str(tmp_path / "nested"), "gztar", tmp_path / "outer")
    expected = list(listed(source).clips)
    assert list(listed(tmp_path / "plain.zip").clips) == expected
    assert list(listed(tmp_path / "nested.tar.gz").clips) == expected


@pytest.mark.parametrize("beside", ["", "README.md"])
def test_the_classes_of_an_archive_may_lie_deeper(
    source: Path, tmp_path: Path, beside: str
) -> None:
    expected = list(listed(source).clips)
    shutil.copytree(source, tmp_path / "outer" / "v1" / "my-data")
    if beside:
        (tmp_path / "outer" / beside).write_text("about\n", encoding="utf-8")
        (tmp_path / "outer" / "v1" / beside).write_text("about\n", encoding="utf-8")
    shutil.make_archive(str(tmp_path / "deep"), "zip", tmp_path / "outer")
    found = listed(tmp_path / "deep.zip")
    assert list(found.clips) == expected
    assert "the classes are the folders in v1/my-data/ of the archive" in found.warnings
    assert not any("of the archive" in note for note in listed(source).warnings)
    with pytest.raises(DataError, match="or that folder if its sub-folders are the classes"):
        listed(tmp_path / "outer" / "v1")
    shutil.rmtree(tmp_path / "outer" / "v1" / "my-data")
    for number in range(3):
        add(tmp_path / "outer" / "v1" / "cough" / f"{number}.wav")
    shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path / "outer")
    with pytest.raises(DataError, match="only one class folder holds audio, 'cough'"):
        listed(tmp_path / "one.zip")


def test_what_cannot_be_a_data_set_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source= is required"):
        prepare(tmp_path / "work")
    with pytest.raises(DataError, match="no such file or folder"):
        listed(tmp_path / "none")
    (tmp_path / "void" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no audio files found"):
        listed(tmp_path / "void")
    add(tmp_path / "void" / "cough" / "monday" / "1.wav")
    with pytest.raises(DataError, match="only one class folder holds audio, 'cough'"):
        listed(tmp_path / "void")
    for index in range(2):
        add(source / "rare" / f"g{index}_0.wav")
    with pytest.raises(DataError, match="fewer than 3 clips: rare"):
        listed(source)
    add(source / "loose.wav")
    with pytest.raises(DataError, match=r"loose\.wav: is outside the class folders"):
        listed(source)


def test_classes_that_nothing_is_taken_from_are_named(source: Path, tmp_path: Path) -> None:
    assert len(listed(source).warnings) == 1
    (source / "scores").mkdir()
    for name in ("a.mid", "b.mid", "notes.txt"):
        (source / "scores" / name).write_text("not audio\n")
    (source / "void").mkdir()
    assert listed(source).warnings[:-1] == [
        "no clip was taken from the folder scores: it holds no audio (2 .mid, 1 .txt)",
        "no clip was taken from the folder void: it holds no audio (it is empty)",
    ]
    for name in ("a.PCM", "b.pcm", "take 1", "README", "e.json", "f.csv", "g.png", ".DS_Store"):
        (source / "hum" / name).write_bytes(b"not taken")
    said = "files that were ignored, by their extension: 2 .pcm, 1 without extension"
    assert said in listed(source).warnings
    os.symlink(source / "hum", source / "aaa")  # which comes first
    with pytest.raises(DataError, match="class folders aaa and hum hold the same files"):
        listed(source)
    (source / "aaa").unlink()
    os.symlink(next(p for p in (source / "hum").iterdir() if p.is_dir()), source / "zzz")
    with pytest.raises(DataError, match="class folders hum and zzz hold the same files, by a link"):
        listed(source)


@pytest.mark.parametrize(
    ("link", "target", "words"),
    [
        ("a/x", "b/deep", "a and b"),  # whose clips would move from b to a
        ("b/x", "a/deep", "a and b"),
        ("a/x", "b", "a and b"),
        ("train/a/x", "test/a", "test/a and train/a"),
        ("test/a/x", "train/b/deep", "test/a and train/b"),
        ("train/a/x", "test", "test and train/a"),
    ],
)
def test_a_link_into_another_class_is_refused(
    tmp_path: Path, link: str, target: str, words: str
) -> None:
    source = tmp_path / "source"
    splits = ("train", "test") if "t" in link else ("",)
    for number, place in enumerate(("a", "b", "a/deep", "b/deep") * 3):
        for split in splits:
            add(source / split / place / f"{number}.wav")
    before = len(list(listed(source).clips))
    (source / link).symlink_to(source / Path(link).parts[0])  # a loop adds nothing
    assert len(list(listed(source).clips)) == before
    (source / link).unlink()
    (source / link).symlink_to(source / target)
    with pytest.raises(DataError, match=f"class folders {words} hold the same files, by a link; r"):
        listed(source)


@pytest.mark.parametrize("data", ["data", "."])
def test_what_the_preparation_writes_is_no_class(source: Path, tmp_path: Path, data: str) -> None:
    """Even if ``data=`` is inside ``source=``, as the default is with ``source=.``."""
    noise = np.random.default_rng(0).normal(size=60 * RATE) / 10
    (tmp_path / "site").mkdir()
    soundfile.write(tmp_path / "site" / "day.wav", noise, RATE)
    before = counts(listed(source))
    for options in ({"background": tmp_path / "site"}, {}):
        found = run_script(prepare, source / data, source=source, **options)
        assert not any("no clip was taken" in line for line in found.warnings)
        assert not any("files that were ignored" in line for line in found.warnings)
        known = Counter((c.label, c.split) for c in found.clips if c.label != "_background_")
        assert known == before
    with pytest.raises(ConfigError, match="is where the preparation keeps its own files; move"):
        run_script(prepare, source / data, source=source / data / "folder")
    shutil.copytree(source / data / "folder", source / "other" / "birds")  # of another recipe
    again = run_script(prepare, source / "other", source=source)
    assert again.labels == tuple(sorted(CLASSES))
    assert not any("no clip was taken" in line for line in again.warnings)


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_source_is_not_the_current_folder(
    source: Path, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    with pytest.raises(ConfigError, match="source= is"):
        prepare(tmp_path / "work", source=given)
    with pytest.raises(ConfigError, match="source= is empty"):
        run_script(prepare, tmp_path, source=given)
    for name in ("background", "labels", "table"):
        with pytest.raises(ConfigError, match=f"{name}= is empty; give a path, or leave it out"):
            listed(source, **{name: given})


def test_corrected_labels_change_no_split(source: Path, tmp_path: Path) -> None:
    before = {clip.path: clip for clip in listed(source).clips}
    (changed, out, kept), classes = sorted(before)[:3], sorted(CLASSES)
    other = next(name for name in classes if name != before[changed].label)
    file = tmp_path / "corrections.csv"
    file.write_text(
        f"clip,label,was\n{changed},{other},{before[changed].label}\n{out},,\n"
        f"{kept},{before[kept].label},{before[kept].label}\n",
        encoding="utf-8",
    )
    found = listed(source, labels=str(file))
    assert found.warnings[:-1] == [
        "1 label changed by labels=corrections.csv, which leaves out 1 clip"
    ]
    after = {clip.path: clip for clip in found.clips}
    assert after.pop(changed).label == other
    assert after == {path: c for path, c in before.items() if path not in (changed, out)}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("clip,label\nhum/none.wav,hum", r"line 2: there is no clip 'hum/none\.wav'"),
        ("clip,label\n{clip},dog", "line 2: unknown class 'dog'; known: hiss, hum, sweep"),
        ("clip,label,was\n{clip},hum,sweep", "line 2: .*was 'sweep' .* but is 'hiss' now"),
        ("clip,label\n{clip},hum\n{clip},sweep", "line 3: .*another label in a line above"),
        ("file,label\n{clip},hum", "holds no corrections; .* columns clip and label"),
        ("", "holds no corrections"),
        (None, "cannot be read .*; check the path"),
    ],
)
def test_corrections_that_do_not_fit_are_named(
    source: Path, tmp_path: Path, lines: str | None, words: str
) -> None:
    clip = next(clip.path for clip in listed(source).clips if clip.label == "hiss")
    file = tmp_path / "corrections.csv"
    if lines is not None:
        file.write_text(lines.format(clip=clip), encoding="utf-8")
    with pytest.raises((ConfigError, DataError), match=words):
        listed(source, labels=str(file))


def test_a_corrected_name_may_look_like_a_formula(source: Path, tmp_path: Path) -> None:
    """The page puts an apostrophe before it."""
    folder = source / "=hum"
    for number in range(3):
        add(folder / f"{number}.wav")
    file = tmp_path / "corrections.csv"
    file.write_text("clip,label\n'=hum/0.wav,hum\nhum/g0_0.wav,'=hum\n", encoding="utf-8")
    labels = {clip.path: clip.label for clip in listed(source, labels=str(file)).clips}
    assert (labels["=hum/0.wav"], labels["hum/g0_0.wav"]) == ("hum", "=hum")
    settings: Any = SimpleNamespace(prep_options={"labels": str(file)})
    assert earlier_corrections(settings) == [  # which the next page adds to
        ("=hum/0.wav", "hum", ""), ("hum/g0_0.wav", "=hum", ""),
    ]  # fmt: skip


def flat(source: Path) -> list[tuple[str, str]]:
    """Moves all clips into one folder; returns their new names and their labels."""
    found = [(clip.path.replace("/", "-"), clip.path, clip.label) for clip in listed(source).clips]
    for name, path, _ in found:
        (source / path).rename(source / name)
    for folder in [one for one in source.iterdir() if one.is_dir()]:
        shutil.rmtree(folder)
    return sorted((name, label) for name, _, label in found)


def test_a_table_gives_labels_groups_and_splits(source: Path, tmp_path: Path) -> None:
    clips = flat(source)
    out, *kept = clips
    lines = [f"{name},{label}" for name, label in kept]
    file = source / "metadata.csv"
    file.write_text("\n".join(["file_name,label", *lines]), encoding="utf-8")
    found = listed(source, table="metadata.csv")
    assert sorted((clip.path, clip.label) for clip in found.clips) == kept
    assert found.warnings[0] == f"not in table=metadata.csv: 1 audio file: {out[0]}"
    assert {clip.split for clip in found.clips} == {"train", "valid", "test"}
    assert not any("not read" in note for note in found.warnings)
    more = [f"{line},ann,7" for line in lines]
    file.write_text("\n".join(["file_name,label,Speaker,", *more]), encoding="utf-8")
    said = listed(source, table="metadata.csv").warnings[1]
    assert said.startswith("table=metadata.csv has columns that are not read: speaker. Read are fi")
    # The table decides, wherever it lies; its groups stay together.
    groups = [f"{line},{number % 5}" for number, line in enumerate(lines)]
    file = tmp_path / "groups.csv"
    file.write_text("\n".join(["file_name,label,group", *groups]), encoding="utf-8")
    found = listed(source, table=str(file))
    assert len({(clip.group, clip.split) for clip in found.clips}) == 5
    assert not any("random" in line for line in found.warnings)
    splits = [f"{line},{('train', 'Test')[number % 2]}" for number, line in enumerate(lines)]
    file.write_text("\n".join(["file_name,label,split", *splits]), encoding="utf-8")
    found = listed(source, table=str(file))
    assert [clip.split for clip in found.clips] == [("train", "test")[n % 2] for n in range(59)]
    # The class of other sounds is cut for clips that are in no folder, too.
    noise = np.random.default_rng(0).normal(size=60 * RATE) / 10
    (tmp_path / "site").mkdir()
    soundfile.write(tmp_path / "site" / "day.wav", noise, RATE)
    prepared = run_script(
        prepare, tmp_path, source=source, table=str(file), background=str(tmp_path / "site")
    )
    assert len(prepared.clips) > 59
    assert "_background_" in prepared.labels


def test_intervals_of_recordings_are_cut(tmp_path: Path) -> None:
    source, lines = tmp_path / "source", ["file_name,start,end,label"]
    (source / "day").mkdir(parents=True)
    waves = {}
    for number in range(6):
        name = f"day/{number}.flac"
        waves[name] = np.random.default_rng(number).integers(-9999, 9999, 5 * RATE) / 32768
        soundfile.write(source / name, waves[name], RATE)
        lines += [f"{name},0.5,1.25,hum", f"{name},1,2.0004,buzz", f"{name},4,5.05,hum"]
    (source / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    prepared = run_script(prepare, tmp_path, source=source, table="a.csv")
    assert len(prepared.clips) == 18
    assert len({(clip.group, clip.split) for clip in prepared.clips}) == 6  # recordings stay whole
    for clip in prepared.clips:
        start, end = map(float, Path(clip.path).stem.split("-"))
        found, rate = soundfile.read(prepared.root / clip.path, dtype="float64")
        expected = waves[str(Path(clip.path).parent)][round(start * RATE) : round(end * RATE)]
        assert rate == RATE
        np.testing.assert_array_equal(found, expected)
    for each, torn in ((3, False), (1, True)):  # lines per split
        splits = [f"{line},{('train', 'test')[n // each % 2]}" for n, line in enumerate(lines[1:])]
        (source / "a.csv").write_text("\n".join([f"{lines[0]},split", *splits]), encoding="utf-8")
        if torn:
            with pytest.raises(DataError, match=r"groups in more than one .*: day/0\.flac"):
                listed(source, table="a.csv")
        else:
            found = listed(source, table="a.csv").clips
            assert {clip.split for clip in found} == {"train", "test"}
    (source / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    for folder in (source / "day", tmp_path):  # whose events are not background
        with pytest.raises(ConfigError, match="background="):
            listed(source, table="a.csv", background=str(folder))
    (tmp_path / "site").mkdir()
    soundfile.write(tmp_path / "site" / "b.wav", np.ones(20 * RATE) / 9, RATE)
    (source / "day").rename(source / "_background_")
    (source / "a.csv").write_text("\n".join(lines).replace("day/", "_background_/"))
    with pytest.raises(ConfigError, match="the source has a folder _background_ already"):
        listed(source, table="a.csv", background=str(tmp_path / "site"))
    (source / "_background_").rename(source / "day")
    (source / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    found = listed(source, table="a.csv", group_regex=r"(\d)\.flac").clips
    assert {clip.group for clip in found} == set("012345")
    (source / "a.csv").write_text("\n".join([*lines, "day/0.flac,4,5.2,hum"]), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 20: the interval from 4 to 5\.2 s ends after day/0"):
        listed(source, table="a.csv")
    (source / "a.csv").write_text("\n".join([*lines, "day/0.flac,4,3605,hum"]), encoding="utf-8")
    with pytest.raises(DataError, match="line 20: the interval from 4 to 3605 s is longer than"):
        listed(source, table="a.csv")


def test_overlapping_intervals_in_different_splits_are_refused(tmp_path: Path) -> None:
    """Groups per line divide them among splits; intervals that only touch share nothing."""
    source, file = tmp_path / "source", tmp_path / "a.csv"
    source.mkdir()
    wave = np.random.default_rng(0).normal(size=30 * RATE) / 9
    soundfile.write(source / "day.wav", wave, RATE)
    for length in (2, 2.5):
        lines = [f"day.wav,{2 * n},{2 * n + length},{'ab'[n // 2 % 2]},{n}" for n in range(12)]
        text = "\n".join(["file_name,start,end,label,group", *lines])
        file.write_text(text, encoding="utf-8")
        if length == 2:
            whole = run_script(prepare, tmp_path, source=source, table=file)
            assert not any("overlapping" in line for line in whole.warnings)
    words = (
        r"overlapping parts .* in different splits \(\d+ pairs; give .*day\.wav/\S+ and day\.wav/"
    )
    with pytest.raises(DataError, match=words):
        run_script(prepare, tmp_path, source=source, table=file)
    allowed = run_script(prepare, tmp_path, source=source, table=file, duplicates="allow")
    assert any(re.search(words, line) for line in allowed.warnings)


def test_recordings_that_cannot_be_used_are_named_together_or_left_out(tmp_path: Path) -> None:
    source, site, random = tmp_path / "source", tmp_path / "site", np.random.default_rng(0)
    lines = ["file_name,start,end,label"]
    for folder, seconds in ((source, 2), (site, 20)):
        folder.mkdir()
        for number in range(8):
            wave = random.normal(size=seconds * RATE) / 9
            soundfile.write(folder / f"{number}.flac", wave, RATE)
            if folder == source:
                lines += [f"{number}.flac,0,0.5,hum", f"{number}.flac,1,1.5,buzz"]
    (source / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    for file in (source / "2.flac", site / "5.flac"):  # whose first clip can be cut
        file.write_bytes(file.read_bytes()[:-2000])
    (source / "4.flac").write_bytes(b"no audio")
    (site / "6.flac").write_bytes(b"no audio")
    options: Any = {"source": source, "table": "a.csv", "background": site}
    bad = ["2.flac", "4.flac", "_background_/5.flac", "_background_/6.flac"]
    for _ in range(2):
        with pytest.raises(DataError, match=r"4 of \d+ clips or recordings cannot") as caught:
            run_script(prepare, tmp_path, **options)
        assert [line.strip().split(":")[0] for line in str(caught.value).split("\n")[1:]] == bad
    prepared = run_script(prepare, tmp_path, skip_bad=True, **options)
    assert [path.partition("/")[0] for path, _ in prepared.skipped] == [*2 * bad[:1], *2 * bad[1:2]]
    assert f"cannot be used: 2 recordings: {bad[2]}, {bad[3]}" in prepared.warnings
    found = {(clip.path.split("/")[0], clip.label) for clip in prepared.clips}
    used = [f"{number}.flac" for number in (0, 1, 3, 5, 6, 7)]
    assert found == {
        *((name, label) for name in used for label in ("hum", "buzz")),
        ("_background_", "_background_"),
    }
    assert all((prepared.root / clip.path).is_file() for clip in prepared.clips)
    # Corrections can leave out all clips of a recording, which is then not bad.
    gone = [f"{path},," for path, _ in prepared.skipped if path.startswith("4.flac")]
    (tmp_path / "labels.csv").write_text("\n".join(["clip,label,was", *gone]), encoding="utf-8")
    found = listed(source, table="a.csv", labels=str(tmp_path / "labels.csv"))
    assert list(found.bad) == ["2.flac"]


def test_a_recording_that_the_system_could_not_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(size=2 * RATE) / 9, RATE)
    wanted = [Interval("a.wav", 0.0, 1.0, "line 2")]

    def fail(path: Path) -> None:
        raise AudioError(f"{path}: cannot be read (stale file handle)") from OSError()

    with monkeypatch.context() as patch:
        patch.setattr(intervals, "probe", fail)
        folder, bad = intervals.cut_intervals(tmp_path, wanted, tmp_path / "work")
        assert bad == {"a.wav": "cannot be read (stale file handle)"}
    assert intervals.cut_intervals(tmp_path, wanted, tmp_path / "work") == (folder, {})
    assert (folder / wanted[0].path).is_file()


@pytest.mark.parametrize("prefix", ["", "audio/", "birds/audio/"])
@pytest.mark.parametrize("where", ["inside", "absolute", "relative"])
def test_a_table_of_an_archive_may_be_in_it_or_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    audio = tmp_path / "outer" / "birds" / "audio"
    audio.mkdir(parents=True)
    lines = ["file_name,label"]
    for number in range(12):
        wave = np.random.default_rng(number).normal(size=RATE) / 9
        soundfile.write(audio / f"{number}.wav", wave, RATE)
        lines.append(f"{prefix}{number}.wav,{'ab'[number % 2]}")
    folder = {"": audio, "audio/": audio.parent, "birds/audio/": tmp_path / "outer"}[prefix]
    table = (folder if where == "inside" else tmp_path) / "t.csv"
    table.write_text("\n".join(lines))
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "outer")
    given = str(table) if where == "absolute" else "t.csv"
    assert len(listed(Path(archive), table=given).clips) == 12


def test_a_table_of_one_recording_needs_groups(tmp_path: Path) -> None:
    source, lines = tmp_path / "source", []
    source.mkdir()
    soundfile.write(source / "day.wav", np.random.default_rng(0).normal(size=9 * RATE) / 9, RATE)
    for number in range(8):
        lines.append(f"day.wav,{number},{number + 0.9},{('hum', 'buzz')[number % 2]}")
    file = source / "a.csv"
    file.write_text("\n".join(["file_name,start,end,label", *lines]), encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of the 3 recordings needed.* or add a column group"):
        listed(source, table="a.csv")
    lines = [f"{line},{number}" for number, line in enumerate(lines)]
    file.write_text("\n".join(["file_name,start,end,label,group", *lines]), encoding="utf-8")
    found = listed(source, table="a.csv").clips
    assert {clip.split for clip in found} == {"train", "valid", "test"}


def test_a_table_may_be_as_spreadsheets_save_it(source: Path) -> None:
    clips = flat(source)
    lines = ["file_name, label ,split", *(",".join((*c, "")) for c in clips), ",,", ",,,"]
    lines[1:-2] = [line + ("train", "test")[n % 2] for n, line in enumerate(lines[1:-2])]
    file = source / "metadata.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert len(listed(source, table="metadata.csv").clips) == len(clips)
    for encoding in ("cp1252", "utf-16"):
        file.write_text("\n".join([*lines, "bell,caf\u00e9,train"]), encoding=encoding)
        with pytest.raises(ConfigError, match="is not in UTF-8; save it as CSV in UTF-8"):
            listed(source, table="metadata.csv")


def test_names_of_columns_may_have_capitals(source: Path) -> None:
    clips = flat(source)
    lines = [f"{','.join(c)},{n % 7},{('train', 'test')[n % 7 < 2]}" for n, c in enumerate(clips)]
    file = source / "metadata.csv"
    file.write_text("\n".join(["File_Name,LABEL,Group,Split", *lines]), encoding="utf-8")
    found = list(listed(source, table="metadata.csv").clips)
    assert [(c.group, c.split) for c in found] == [tuple(line.split(",")[2:]) for line in lines]
    file.write_text("clip,Label\n" + ",".join((clips[0][0], "hum")), encoding="utf-8")
    corrected = correct_labels(found, file)[0]
    assert {clip.path: clip.label for clip in corrected}[clips[0][0]] == "hum"


def test_an_accent_may_be_composed_or_not(tmp_path: Path) -> None:
    """As macOS, other systems and spreadsheets differ: the class is one, the path is the file's."""
    source, file = tmp_path / "source", tmp_path / "a.csv"
    composed, apart = "K\u00e4se", "Ka\u0308se"
    for number in range(3):
        for name in (composed, apart, "hum"):
            add(source / name / f"{number}{name}.wav")
    before = {clip.path: clip.label for clip in listed(source).clips}
    assert Counter(before.values()) == {composed: 6, "hum": 3}
    assert {Path(path).parts[0] for path in before} == {composed, apart, "hum"}
    grouped = listed(source, group_regex=r"/(\w+)").clips
    assert {clip.group for clip in grouped} == {
        f"{n}{name}" for n in "012" for name in (composed, "hum")
    }
    text = "\n".join(f"{p},{la},{n},{g}" for p, la, n, g in (
        *((f"hum/{n}hum.wav", "hum", "train", "x") for n in range(3)),
        (f"{apart}/0{apart}.wav", composed, "train", composed),
        *((f"{apart}/{n}{apart}.wav", apart, "test", apart) for n in (1, 2)),
    ))  # fmt: skip
    file.write_text(f"file_name,label,split,group\n{text}", encoding="utf-8")
    with pytest.raises(DataError, match=f"groups in more than one of the given splits: {composed}"):
        listed(source, table=str(file))
    (source / composed).rename(source / "b")
    (source / "b" / f"0{composed}.wav").rename(source / "b" / "other.wav")
    lines = [f"{composed}/{n}{composed}.wav,{name}" for n, name in enumerate((composed, apart, ""))]
    text = "\n".join(["file_name,label", *lines[:2], *(f"hum/{n}hum.wav,hum" for n in range(3))])
    file.write_text(f"{text}\nb\\other.wav,{apart}\n", encoding="utf-8")  # as on Windows
    found = {clip.path: clip.label for clip in listed(source, table=str(file)).clips}
    assert [path for path, label in found.items() if label == composed] == [
        f"{apart}/0{apart}.wav", f"{apart}/1{apart}.wav", "b/other.wav",
    ]  # fmt: skip
    file.write_text("\n".join(["clip,label", *lines, f"hum/0hum.wav,{apart}"]), encoding="utf-8")
    found = {clip.path: clip.label for clip in listed(source, labels=str(file)).clips}
    assert f"{apart}/2{apart}.wav" not in found
    assert found["hum/0hum.wav"] == composed


def test_classes_that_differ_only_in_case_are_named(source: Path, tmp_path: Path) -> None:
    clips = flat(source)
    lines = [f"{name},{label.title() if n % 2 else label}" for n, (name, label) in enumerate(clips)]
    file = tmp_path / "a.csv"
    file.write_text("\n".join(["file_name,label", *lines]), encoding="utf-8")
    named = "Hiss and hiss, Hum and hum, Sweep and sweep"
    said = f"classes whose names differ only in case or spaces: {named}"
    assert said in listed(source, table=str(file)).warnings


def test_classes_that_differ_only_in_spaces_are_named(source: Path) -> None:
    shutil.copytree(source / "hum", source / "hum ")
    said = "classes whose names differ only in case or spaces: 'hum' and 'hum '"
    assert said in listed(source).warnings


def test_classes_that_seem_to_be_several_labels_are_named(source: Path, tmp_path: Path) -> None:
    clips, file = flat(source), tmp_path / "a.csv"
    for labels, said in (
        (["dog", "wind", "dog; wind"], "1 of 3 classes seem to be .*: dog; wind; several labels"),
        (["a|b", "a|c", "d, e"], r"2 of 3 classes seem to be .*: a\|b, a\|c; several labels"),
        (["dog, small", "cat, large", "rain;"], None),
    ):
        lines = [f'{name},"{labels[n % 3]}"' for n, (name, _) in enumerate(clips)]
        file.write_text("\n".join(["file_name,label", *lines]), encoding="utf-8")
        warned = "\n".join(listed(source, table=str(file)).warnings)
        assert "several labels" not in warned if said is None else re.search(said, warned)


def test_paths_of_a_table_may_be_absolute(source: Path, tmp_path: Path) -> None:
    clips, file = flat(source), tmp_path / "a.csv"
    (tmp_path / "link").symlink_to(source)
    for folder in (source, tmp_path / "link"):
        lines = [f"{folder / name},{label}" for name, label in clips]
        file.write_text("\n".join(["file_name,label", *lines]), encoding="utf-8")
        found = listed(tmp_path / "link", table=str(file)).clips
        assert sorted((clip.path, clip.label) for clip in found) == clips
    for path, said in (
        (tmp_path / "x.wav", "is outside the source"),
        (source / "x.wav", "no audio"),
    ):
        file.write_text(f"file_name,label\n{path},hum", encoding="utf-8")
        with pytest.raises(DataError, match=said):
            listed(source, table=str(file))


def test_a_table_may_name_files_below_the_target_of_a_link(source: Path, tmp_path: Path) -> None:
    """The walk lists a folder at one of its paths, here at the link, which sorts first."""
    (source / "a").symlink_to(source / "hum")
    clips = sorted(path.relative_to(source).as_posix() for path in (source / "hum").rglob("*.*"))
    lines = [f"{clip},{'xy'[n % 2]}" for n, clip in enumerate(clips[:6])]
    (tmp_path / "t.csv").write_text("\n".join(["file_name,label", *lines]))
    assert len(listed(source, table=str(tmp_path / "t.csv")).clips) == 6


def test_folders_of_splits_that_a_table_does_not_use_are_named(tmp_path: Path) -> None:
    lines = []
    for n in range(12):
        path = f"{'test' if n > 8 else 'train'}/{n}.wav"
        add(tmp_path / "source" / path)
        lines.append(f"{path},{'xy'[n % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(["file_name,label", *lines]))
    found = listed(tmp_path / "source", table=str(tmp_path / "t.csv"))
    assert found.warnings[0].startswith("the folders test, train do not divide the clips")


def test_a_table_in_an_archive_is_found_beside_its_clips(source: Path, tmp_path: Path) -> None:
    clips = flat(source)
    text = "\n".join(["file_name,label", *(",".join(clip) for clip in clips)])
    (source / "metadata.csv").write_text(text, encoding="utf-8")
    archive = shutil.make_archive(str(tmp_path / "sounds"), "zip", tmp_path, "source")
    found = prepare(tmp_path / "work", source=archive, table="metadata.csv")
    assert len(found.clips) == len(clips)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "file_name;label\n{0};hum",
            r"needs the columns file_name and label.*; it has file_name;label",
        ),
        ("", "it has no line"),
        ("file_name,label\nhum.wav,hum", r"line 2: there is no audio file 'hum\.wav'"),
        ("file_name,label\n\n{0},hum\n{0},hum", "line 4: .* is also in a line above"),
        ("file_name,label\n{0},", "line 2: .* has no label"),
        ("file_name,label,split\n{0},hum,tset", "line 2: split is 'tset'; expected train, valid"),
        ("file_name,label,split\n{0},hum,train", "split needs both train and test; it has train"),
        ("file_name,label,group\n{0},hum,", "line 2: .* has no group"),
        ("file_name,label\n{0},hum", "all clips have the label 'hum'"),
        ("file_name,label\n{0},rain, light", "line 2: more cells than columns; enclose values"),
        ("file_name,label,Label\n{0},hum,b", "has more than one column label; keep one, or rename"),
        ("file_name,label,start\n{0},hum,1", "only one of the columns start and end; give both"),
        ("file_name,label,start,end\n{0},hum,1,", "line 2: start is '1' and end is ''; expected"),
        ("file_name,label,start,end\n{0},hum,2,1", "line 2: start is '2' and end is '1'; expected"),
        (
            'file_name,label,group\n{0},hum,"a\n{1},hum,a',
            r"is not CSV .*; check its quotation marks",
        ),
        (None, "table=.*cannot be read .*; check the path"),
    ],
)
def test_a_table_that_does_not_fit_is_named(
    source: Path, tmp_path: Path, lines: str | None, words: str
) -> None:
    file = tmp_path / "table.csv"
    if lines is not None:
        clips = [clip.path for clip in listed(source).clips]
        file.write_text(lines.format(*clips) + "\n", encoding="utf-8")
    with pytest.raises((ConfigError, DataError), match=words):
        listed(source, table=str(file))


def test_the_home_of_an_unknown_user_is_no_folder(source: Path) -> None:
    with pytest.raises(DataError, match="source='~nobody-here/a': no such file or folder"):
        listed(Path("~nobody-here/a"))


def test_groups_are_given_once(source: Path, tmp_path: Path) -> None:
    clip = next(iter(listed(source).clips)).path
    file = tmp_path / "table.csv"
    file.write_text(f"file_name,label,group\n{clip},hum,a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has a column group; leave group_regex out"):
        listed(source, table=str(file), group_regex="g")


def test_groups_that_leave_little_to_train_on_are_named() -> None:
    groups = ["r1"] * 20 + ["r2"] * 9
    clips = [
        SourceClip(f"{i}.wav", "wren", "valid" if group == "r1" else "train", group)
        for i, group in enumerate(groups)
    ]
    [said] = _little_training(clips, 0.7)
    assert said.startswith("only 9 of 29 clips are trained on, as groups are not divided, and 'r1'")
    assert not _little_training(clips, 0.6)
    few = [
        SourceClip(f"{word}/{split}.wav", str(word), split, f"{word}/{split}")
        for word in range(50)
        for split in ("train", "valid", "test")
    ]
    [said] = _little_training(few, 0.7)
    assert said.startswith("only 50 of 150 clips are trained on, as each class has at least one")
