"""The class of all other sounds, cut from one long recording or many short ones."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from data_prep.folder import prepare
from spaudio.audio import SourceClips
from spaudio.audio.background import cut_background
from spaudio.audio.intervals import Interval, cut_intervals
from spaudio.audio.manifest import Clip
from spaudio.errors import ConfigError, DataError
from spaudio.experiment.tasks.describe import describe_split
from tests.fixtures.own_sounds import make_own_sounds
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_run import compose

COUNTS = {"train": 7, "valid": 1, "test": 2}
RATE = 8000


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_sounds(tmp_path_factory.mktemp("own") / "sounds")


def ramp(path: Path, seconds: float) -> Path:
    """A recording of which every sample tells its place; returns its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(1, round(seconds * RATE) + 1) / 2**15
    soundfile.write(path, values, RATE, "PCM_16")
    return path.parent


def test_the_background_is_as_decoded(tmp_path: Path) -> None:
    """Neither clipped nor rounded to 16 bits, which a model could tell from other clips."""
    folder = tmp_path / "in"
    folder.mkdir()
    wave = 3 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    soundfile.write(folder / "a.wav", wave, 8000, subtype="FLOAT")
    root, clips, _ = cut_background(folder, tmp_path / "work", seconds=0.1, counts=COUNTS, seed=0)
    for clip in clips:
        cut = soundfile.read(root / clip.path, dtype="float32")[0]
        [start] = np.flatnonzero(wave == cut[0])
        np.testing.assert_array_equal(cut, wave[start : start + 800])
    os.rename(folder / "a.wav", folder / os.fsdecode(b"odd\xff.wav"))
    with pytest.raises(DataError, match=r"not enough sound .* cannot be used: odd.*\(its name is"):
        cut_background(folder, tmp_path / "work", seconds=0.1, counts=COUNTS, seed=0)


def listed(sounds: Path, work: Path, background: Path) -> SourceClips:
    return prepare(work, source=str(sounds), background=str(background))


def test_one_recording_gives_every_split_seconds_of_its_own(tmp_path: Path) -> None:
    folder = ramp(tmp_path / "in" / "deep" / "long.wav", 3.9)
    root, clips, _ = cut_background(
        folder.parent, tmp_path / "work", seconds=0.1, counts=COUNTS, seed=0
    )
    assert Counter(clip.split for clip in clips) == COUNTS
    places: dict[str, set[int]] = {}
    for clip in clips:
        wave = soundfile.read(root / clip.path, dtype="float32")[0] * 2**15
        assert len(wave) == 800
        assert (np.diff(wave) == 1).all()  # cut out, and not altered
        places.setdefault(clip.split, set()).add(int(wave[0]) // 800)
    assert max(places["valid"]) < min(places["test"])
    assert max(places["test"]) < min(places["train"])
    again = cut_background(folder.parent, tmp_path / "other", seconds=0.1, counts=COUNTS, seed=0)
    assert again[1] == clips


def test_many_recordings_are_divided_and_silence_is_left_out(tmp_path: Path) -> None:
    for number in range(20):
        ramp(tmp_path / "in" / f"{number}.wav", 0.05 if number % 2 else 0.1)  # short ones too
    soundfile.write(tmp_path / "in" / "silent.wav", np.zeros(RATE // 10), RATE)
    many = {split: 10 * count for split, count in COUNTS.items()}
    _, clips, _ = cut_background(tmp_path / "in", tmp_path / "w", seconds=0.1, counts=many, seed=0)
    assert len(clips) == 20
    root, clips, _ = cut_background(
        tmp_path / "in", tmp_path / "w", seconds=0.1, counts=COUNTS, seed=0
    )
    assert Counter(clip.split for clip in clips) == COUNTS
    assert len({clip.path.split("/")[0] for clip in clips}) == len(clips)  # no recording twice
    assert {len(soundfile.read(root / clip.path)[0]) for clip in clips} == {400, 800}


def test_silence_takes_no_place_in_a_split(tmp_path: Path) -> None:
    """Of 400 pieces, the ten with sound give the ten clips that are wanted."""
    wave = np.zeros(40 * RATE)
    wave[20 * RATE : 21 * RATE] = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", wave, RATE)
    _, clips, _ = cut_background(
        tmp_path / "in", tmp_path / "w", seconds=0.1, counts=COUNTS, seed=0
    )
    assert Counter(clip.split for clip in clips) == COUNTS


def test_a_replaced_recording_is_cut_anew(tmp_path: Path) -> None:
    one, folder = Interval("a.wav", 0.1, 0.3, "line 2"), tmp_path / "in"
    folder.mkdir()
    found = []
    for seed in range(2):
        wave = np.random.default_rng(seed).uniform(-0.5, 0.5, RATE)
        soundfile.write(folder / "a.wav", wave, RATE)
        cut = cut_intervals(folder, [one], tmp_path / "work")[0] / one.path
        np.testing.assert_allclose(soundfile.read(cut)[0], wave[800:2400], atol=1e-4)
        each = dict.fromkeys(COUNTS, 1)
        root, clips, _ = cut_background(folder, tmp_path / "work", seconds=0.1, counts=each, seed=0)
        found.append(soundfile.read(root / clips[0].path)[0])
    assert not np.array_equal(*found)


def test_intervals_of_a_long_recording_are_cut_where_they_are(tmp_path: Path) -> None:
    """Recordings are read in blocks; intervals begin, end and lie across the limits of blocks."""
    wave = np.linspace(-0.9, 0.9, 40 * RATE)
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "a.wav", wave, RATE, subtype="FLOAT")
    spans = [(1.0, 2.0), (8.0, 8.5), (12.0, 20.25), (16.384, 24.576), (30.0, 40.0)]
    intervals = [Interval("a.wav", *span, "") for span in spans]
    root, bad = cut_intervals(folder, intervals, tmp_path / "work")
    assert not bad
    for one, (start, end) in zip(intervals, spans, strict=True):
        expected = wave[round(start * RATE) : round(end * RATE)]
        np.testing.assert_allclose(soundfile.read(root / one.path)[0], expected, atol=1e-4)


def test_an_interval_that_was_chosen_by_the_header_may_end_too_late(tmp_path: Path) -> None:
    ramp(tmp_path / "in" / "a.wav", 1.0)
    late = [Interval("a.wav", start, start + 0.5, "", spare=True) for start in (0.2, 0.8, 1.2)]
    root, bad = cut_intervals(tmp_path / "in", late, tmp_path / "work")
    assert not bad
    assert [(root / one.path).exists() for one in late] == [True, False, False]


def test_a_recording_that_stays_unreadable_is_not_cut_again(tmp_path: Path) -> None:
    folder, each = ramp(tmp_path / "in" / "a.wav", 4.0), dict.fromkeys(COUNTS, 1)
    (folder / "b.wav").symlink_to(tmp_path / "nowhere")
    states = set()
    for _ in range(2):
        root, clips, bad = cut_background(
            folder, tmp_path / "work", seconds=0.1, counts=each, seed=0
        )
        assert set(bad) == {"b.wav"}
        states.add((root / clips[0].path).stat().st_ino)
    assert len(states) == 1


def test_clips_that_are_missing_are_cut_again(tmp_path: Path) -> None:
    ramp(tmp_path / "in" / "a.wav", 2.0)
    parts = [Interval("a.wav", start, start + 0.5, "") for start in (0.2, 0.8)]
    root, _ = cut_intervals(tmp_path / "in", parts, tmp_path / "work")
    for lost in (parts[0].path, "content.json"):  # the second by a removal that was interrupted
        (root / lost).unlink()
        assert cut_intervals(tmp_path / "in", parts, tmp_path / "work") == (root, {})
        assert all((root / one.path).is_file() for one in parts)
    assert list((tmp_path / "work").iterdir()) == [root]


def test_corrections_of_a_background_that_is_cut_elsewhere(sounds: Path, tmp_path: Path) -> None:
    for name in "abcdef":
        folder = ramp(tmp_path / "noise" / f"{name}.wav", 4.0)
    file = tmp_path / "labels.csv"
    one, two = (
        [
            clip.path
            for clip in prepare(
                tmp_path / "work", source=str(sounds), background=str(folder), split_seed=seed
            ).clips
            if clip.label == "_background_"
        ]
        for seed in (0, 1)
    )
    gone = next(path for path in one if path not in two)
    file.write_text(f"clip,label,was\n{gone},zero,_background_\n")
    for seed, said in ((0, "1 label changed"), (1, "1 correction of _background_")):
        found = prepare(
            tmp_path / "work", source=str(sounds), background=str(folder), labels=str(file),
            split_seed=seed,
        )  # fmt: skip
        assert any(text.startswith(said) for text in found.warnings), found.warnings


def test_the_class_is_as_long_and_as_large_as_the_others(sounds: Path, tmp_path: Path) -> None:
    ramp(tmp_path / "noise" / "a.wav", 4.0)
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    soundfile.write(tmp_path / "noise" / "b.wav", noise, RATE)
    without = prepare(tmp_path / "work", source=str(sounds))
    found = listed(sounds, tmp_path / "work", tmp_path / "noise")
    mine = [clip for clip in found.clips if clip.label == "_background_"]
    others = [clip for clip in found.clips if clip.label != "_background_"]
    assert others == list(without.clips)
    assert 5 <= len(mine) <= 20
    assert any(f"hold sound for {len(mine)} clips" in text for text in found.warnings) == (
        len(mine) < len(others) / 3
    )
    assert {clip.split for clip in mine} == {"train", "valid", "test"}
    seconds = [soundfile.info(found.root / clip.path).duration for clip in others]
    for clip in mine:
        assert soundfile.info(found.root / clip.path).duration == pytest.approx(
            np.median(seconds), abs=1e-3
        )
    prepared = run_script(prepare, tmp_path, source=sounds, background=str(tmp_path / "noise"))
    assert prepared.labels == ("_background_", "four", "seven", "zero")


def test_a_bad_recording_takes_no_clip_of_another_with_it(sounds: Path, tmp_path: Path) -> None:
    """``train/a.wav`` is also the name of a part of ``a.wav``, if the split is written first."""
    ramp(tmp_path / "noise" / "a.wav", 8.0)
    before = run_script(prepare, tmp_path / "1", source=sounds, background=str(tmp_path / "noise"))
    (tmp_path / "noise" / "train").mkdir()
    (tmp_path / "noise" / "train" / "a.wav").write_bytes(b"no audio")
    after = run_script(
        prepare, tmp_path / "2", source=sounds, background=str(tmp_path / "noise"), skip_bad=True
    )
    assert "cannot be used: 1 recording: _background_/train/a.wav" in " ".join(after.warnings)
    assert not after.skipped
    assert len(after.clips) == len(before.clips)


def test_the_page_does_not_take_the_background_for_groups() -> None:
    settings = compose("folder", "source=x", "background=y")
    clips = [
        Clip(path, label, split, group, 1.0, 8000)
        for path, label, split, group in (
            ("a1", "hum", "train", "1"), ("b2", "hum", "test", "2"),  # each a group of its own
            ("_background_/c", "_background_", "train", "train-0"),
                ("_background_/d", "_background_", "test", "test-0"),
        )
    ]  # fmt: skip
    prepared = SimpleNamespace(unused=())
    data = SimpleNamespace(clips=clips, held_out=False, prepared=prepared)
    said = " ".join(describe_split(settings, data))  # type: ignore[arg-type]
    assert "Clips are not grouped" in said
    assert "no part of a recording is in two splits, but different parts" in said
    # Cut from what lies between annotations, it has their groups.
    between = Clip("rec/0.0-1.0.wav", "_background_", "test", "1", 1.0, 8000)
    data.clips.append(between)
    said = " ".join(describe_split(settings, data))  # type: ignore[arg-type]
    assert "1 of the 2 groups (speakers, recordings …) of the test split are also in" in said
    data.clips.remove(between)
    own = " ".join(describe_split(compose("folder", "source=x"), data))  # type: ignore[arg-type]
    assert "no part" not in own  # a class of this name, of clips that were split at random


def test_folders_that_cannot_be_the_background_are_named(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"background=.*nowhere: no such folder"):
        listed(sounds, tmp_path, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is part of the source"):
        listed(sounds, tmp_path, sounds / "zero")
    with pytest.raises(ConfigError, match="holds the source"):
        listed(sounds, tmp_path, sounds.parent)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no audio files found to cut _background_ from"):
        listed(sounds, tmp_path, tmp_path / "void")
    short = ramp(tmp_path / "short" / "a.wav", 0.5)
    with pytest.raises(DataError, match="not enough sound for a _background_ clip"):
        listed(sounds, tmp_path, short)
