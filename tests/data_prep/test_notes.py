from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.notes import pitch_name, prepare
from data_prep.notes.soundfont import FAMILIES, load_soundfont, program_samples
from spaudio.audio import Prepared, SourceClips
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "families": ["piano", "reed"],
    "programs_per_family": 3,
    "num_pitches": 3,
    "num_velocities": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def tiny(folder: Path, **changes: Any) -> Prepared:
    return run_script(prepare, folder, workers=1, **(TINY | changes))


def listed(**changes: Any) -> SourceClips:
    """The full set's listing, without rendering it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.notes.render_programs", lambda *a, **k: None)
        return prepare(Path("unused"), **changes)


def splits_by(source: SourceClips, key: Any) -> dict[Any, set[str]]:
    found: dict[Any, set[str]] = {}
    for clip in source.clips:
        found.setdefault(key(clip), set()).add(clip.split)
    return found


def test_a_seed_gives_one_manifest(folder: Path) -> None:
    prepared = tiny(folder)
    # Fixed for ever: it depends on nothing but names, splits and lengths.
    assert prepared.hash == "98b1ff82904c4e502f877436542c7c6872e41cf5fc788732ed521b7932e15b9d"
    assert {(clip.seconds, clip.sample_rate) for clip in prepared.clips} == {(1.0, 16000)}
    assert list(listed(split_seed=1).clips) != list(listed().clips)


def test_tasks_share_one_rendering(folder: Path) -> None:
    prepared = {task: tiny(folder, task=task) for task in ("family", "program", "pitch")}
    assert len({p.root for p in prepared.values()}) == 1
    assert prepared["family"].labels == ("piano", "reed")
    assert prepared["pitch"].labels == ("D#2", "F2", "G2")
    assert prepared["program"].labels == (
        "Acoustic Grand Piano",
        "Electric Piano 1",
        "Electric Piano 2",
        "Soprano Sax",
        "Alto Sax",
        "Tenor Sax",
    )


def test_the_full_set_has_ten_families_of_eighty_programs() -> None:
    source = listed()
    assert list(source.labels or ()) == FAMILIES
    clips = list(source.clips)
    assert len(clips) == len({clip.path for clip in clips}) == 6400
    assert Counter(clip.label for clip in clips) == dict.fromkeys(FAMILIES, 640)
    programs = {(clip.label, clip.group, clip.split) for clip in clips}
    shares = Counter((label, split) for label, _, split in programs)
    for family in FAMILIES:
        assert shares[family, "test"] in (2, 3)
        assert shares[family, "valid"] in (1, 2)
        assert shares[family, "train"] >= 3


@pytest.mark.parametrize("task", ["family", "pitch"])
def test_instruments_of_test_and_validation_are_never_heard(task: str) -> None:
    source = listed(task=task)
    assert all(len(found) == 1 for found in splits_by(source, lambda c: c.group).values())
    every = {"train", "valid", "test"}
    assert all(found == every for found in splits_by(source, lambda c: c.label).values())


@pytest.mark.parametrize("seed", [0, 1])
def test_samples_of_test_and_validation_are_never_heard(seed: int) -> None:
    samples = program_samples(load_soundfont())
    heard: dict[str, set[int]] = {"train": set(), "valid": set(), "test": set()}
    for clip in listed(split_seed=seed).clips:
        heard[clip.split] |= samples[int(clip.path.split("/")[0])]
    assert all(heard.values())
    assert not heard["train"] & heard["valid"]
    assert not heard["train"] & heard["test"]
    assert not heard["valid"] & heard["test"]


def test_pitches_of_test_and_validation_are_never_heard() -> None:
    source = listed(task="program")
    assert len(source.labels or ()) == 80
    by_pitch = splits_by(source, lambda c: c.path.split("/")[1][:3])
    assert Counter(next(iter(found)) for found in by_pitch.values()) == {
        "train": 14,
        "valid": 2,
        "test": 4,
    }
    assert all(len(found) == 1 for found in by_pitch.values())
    every = {"train", "valid", "test"}
    assert all(found == every for found in splits_by(source, lambda c: c.label).values())


def test_pitch_names() -> None:
    assert [pitch_name(p) for p in (0, 21, 60, 69, 127)] == ["C-1", "A0", "C4", "A4", "G9"]


def test_the_missing_note_of_the_soundfont_is_named(tmp_path: Path) -> None:
    """The reason for the default pitches: program 65 has no sample for pitch 64."""
    with pytest.raises(DataError, match=r"1 of 18 clips.*\n.*065/064_120\.flac: silent"):
        tiny(tmp_path, lowest_pitch=63, pitch_step=1)


OUT_OF_RANGE: list[tuple[str, Any]] = [
    ("source", "x.sf2"),
    ("task", "genre"),
    ("families", ["piano", "kazoo"]),
    ("families", ["piano"]),
    ("programs_per_family", 2),
    ("num_pitches", 0),
    ("lowest_pitch", 120),
    ("pitch_step", 0),
    ("num_velocities", 0),
]


def test_options_out_of_range(tmp_path: Path) -> None:
    for option, value in OUT_OF_RANGE:
        with pytest.raises(ConfigError, match=option):
            prepare(tmp_path, **{option: value})


def test_the_script_runs_by_itself(tmp_path: Path) -> None:
    arguments = [
        'families=["piano","reed"]',
        "programs_per_family=3",
        "num_pitches=3",
        "num_velocities=1",
        "workers=2",
        f"folder={tmp_path}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.notes", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "18 clips (test 6, train 6, valid 6), 2 labels, 0 skipped" in done.stdout
    assert "Rendering programs" in done.stderr
