import runpy
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from data_prep.notes import pitch_name, prepare
from data_prep.notes.render import CLIP_SECONDS, Note, Program, render_program, render_programs
from data_prep.notes.soundfont import FAMILIES, load_soundfont, program_samples, without_effects
from spaudio.audio import Prepared, SourceClips
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script

RATE = 16_000
NOTES = tuple(Note(pitch, 100, 0.05, 0.7) for pitch in (57, 69, 81))
PROGRAMS = [Program(number, NOTES[:2]) for number in (0, 19, 40)]
TINY: dict[str, Any] = {"families": ["piano", "reed"], "programs_per_family": 3, "num_pitches": 3}
EVERY = {"train", "valid", "test"}


def tiny(folder: Path, **changes: Any) -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.get_num_threads", lambda: 1)
        return run_script(prepare, folder, **(TINY | {"num_velocities": 1} | changes))


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


def test_a_seed_gives_one_manifest_and_tasks_share_one_rendering(tmp_path: Path) -> None:
    prepared = {task: tiny(tmp_path, task=task) for task in ("family", "program", "pitch")}
    # Fixed for ever: it depends on nothing but names, splits and lengths.
    family = prepared["family"]
    assert family.hash == "2a6d4a394dee2d43e6822e9bb75c83ffdcc53e1eb2d455c5c3bcd48e330f2ee7"
    assert {(clip.seconds, clip.sample_rate) for clip in family.clips} == {(1.0, RATE)}
    assert list(listed(split_seed=1).clips) != list(listed().clips)
    assert len({p.root for p in prepared.values()}) == 1
    assert family.labels == ("piano", "reed")
    assert prepared["pitch"].labels == ("D#2", "F2", "G2")
    assert prepared["program"].labels[2:4] == ("Electric Piano 2", "Soprano Sax")
    assert [pitch_name(p) for p in (0, 21, 60, 69, 127)] == ["C-1", "A0", "C4", "A4", "G9"]


def test_the_full_set_has_ten_families_of_eighty_programs() -> None:
    source = listed()
    assert list(source.labels or ()) == FAMILIES
    clips = list(source.clips)
    assert len({clip.path for clip in clips}) == 6400
    assert Counter(clip.label for clip in clips) == dict.fromkeys(FAMILIES, 640)
    shares = Counter(
        (label, split) for label, _, split in {(c.label, c.group, c.split) for c in clips}
    )
    for family in FAMILIES:
        assert shares[family, "test"] in (2, 3)
        assert shares[family, "valid"] in (1, 2)
        assert shares[family, "train"] >= 3


@pytest.mark.parametrize(("task", "seed"), [("family", 0), ("pitch", 1)])
def test_instruments_and_samples_of_test_and_validation_are_never_heard(
    task: str, seed: int
) -> None:
    source = listed(task=task, split_seed=seed)
    assert all(len(found) == 1 for found in splits_by(source, lambda c: c.group).values())
    assert all(found == EVERY for found in splits_by(source, lambda c: c.label).values())
    samples = program_samples(load_soundfont())
    heard: dict[str, set[int]] = {split: set() for split in EVERY}
    for clip in source.clips:
        heard[clip.split] |= samples[int(clip.path.split("/")[0])]
    assert all(heard.values())
    assert sum(map(len, heard.values())) == len(set.union(*heard.values()))


def test_pitches_of_test_and_validation_are_never_heard() -> None:
    source = listed(task="program")
    assert len(source.labels or ()) == 80
    by_pitch = splits_by(source, lambda c: c.path.split("/")[1][:3])
    numbers = Counter(split for found in by_pitch.values() for split in found)
    assert numbers == {"train": 14, "valid": 2, "test": 4}
    assert all(found == EVERY for found in splits_by(source, lambda c: c.label).values())


def test_the_missing_note_of_the_soundfont_is_named(tmp_path: Path) -> None:
    """The reason for the default pitches: program 65 has no sample for pitch 64."""
    with pytest.raises(DataError, match=r"1 of 18 clips.*\n.*065/064_120\.wav: silent"):
        tiny(tmp_path, lowest_pitch=63, pitch_step=1)


@pytest.mark.parametrize(
    ("option", "value"),
    [("source", "x.sf2"), ("task", "genre"), ("families", ["piano", "kazoo"]),
     ("families", ["piano"]), ("programs_per_family", 2), ("num_pitches", 0),
     ("lowest_pitch", 120), ("pitch_step", 0), ("num_velocities", 0), ("note_rate", 0),
     ("split_seed", -1)],
)  # fmt: skip
def test_options_out_of_range(tmp_path: Path, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        prepare(tmp_path, **{option: value})


def test_the_script_runs_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['families=["piano","reed"]', "programs_per_family=3", "num_pitches=3"]
    monkeypatch.setattr(sys, "argv", ["notes", *options, f"folder={tmp_path}"])
    runpy.run_module("data_prep.notes", run_name="__main__")
    said = capsys.readouterr()
    assert "72 clips (test 24, train 24, valid 24), 2 labels, 0 skipped" in said.out
    assert "Rendering programs" in said.err


@pytest.mark.parametrize("program", [19, 73], ids=["church-organ", "flute"])
def test_a_note_has_its_pitch_and_its_time(program: int) -> None:
    clips = render_program(without_effects(load_soundfont()), Program(program, NOTES), RATE)
    for note, clip in zip(NOTES, clips, strict=True):
        assert clip.shape == (CLIP_SECONDS * RATE,)
        onset = round(note.onset * RATE)
        assert np.abs(clip[: onset - RATE // 100]).max() < 2e-4
        assert np.abs(clip[onset : onset + RATE // 4]).max() > 0.02
        tone = clip[onset + 1600 : onset + 9600] * np.hanning(8000)
        strongest = np.argmax(np.abs(np.fft.rfft(tone, 1 << 16))) * RATE / (1 << 16)
        # Strongest near the fundamental or one of its octaves (organ stops, breath).
        octaves = np.log2(strongest / (440 * 2 ** ((note.pitch - 69) / 12)))
        assert octaves == pytest.approx(round(octaves), abs=0.02)


def test_without_effects_no_note_reaches_the_next_clip() -> None:
    wet = load_soundfont()
    dry = without_effects(wet)
    assert len(dry) == len(wet)
    changed = [i for i in range(0, len(wet), 2) if wet[i : i + 2] != dry[i : i + 2]]
    assert len(changed) > 100
    for place in changed:
        assert struct.unpack_from("<H", wet, place - 2)[0] in (15, 16)  # chorus, reverb
    notes = (Note(72, 120, 0.1, 0.8), Note(60, 48, 0.05, 0.7))
    for program in (50, 65, 48, 14):  # the longest releases and the most reverberation
        clips = render_program(dry, Program(program, notes), RATE)
        assert np.abs(clips[1][: RATE // 25]).max() < 2e-4
    tail = render_program(wet, Program(65, notes), RATE)[1][: RATE // 25]
    assert np.abs(tail).max() > 1e-3
    with pytest.raises(DataError, match="not a SoundFont"):
        without_effects(b"RIFF....WAVE" + bytes(100))


def test_rendering_is_resumed_and_the_same_in_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []

    def interrupted(soundfont: bytes, program: Program, rate: int) -> list[np.ndarray]:
        rendered.append(program.number)
        if program.number == 19 and rendered.count(19) == 1:
            raise KeyboardInterrupt
        return render_program(soundfont, program, rate)

    def render(name: str, workers: int) -> None:
        render_programs(PROGRAMS, tmp_path / name, sample_rate=RATE, workers=workers)

    monkeypatch.setattr(sys.modules[render_program.__module__], "render_program", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render("one", workers=1)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"000"}
    (tmp_path / "one" / ".killed.tmp").mkdir()  # what a killed process leaves
    render("one", workers=1)
    assert rendered == [0, 19, 19, 40]
    [note, *_] = (tmp_path / "one" / "019").iterdir()
    assert soundfile.info(note).format == note.suffix[1:].upper() == "WAV"
    note.unlink()
    render("one", workers=1)
    assert rendered == [0, 19, 19, 40, 19]
    render("two", workers=2)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*"))
    assert len(files) == 9
    for file in files:
        other = tmp_path / "two" / file
        assert other.is_dir() or other.read_bytes() == (tmp_path / "one" / file).read_bytes()


def test_what_cannot_be_rendered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="failed in a process"):
        render_programs([Program(300, NOTES)], tmp_path, sample_rate=RATE, workers=2)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs midirenderer.*\[notes\]"):
        load_soundfont()
