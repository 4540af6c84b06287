from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.notes.render import CLIP_SECONDS, Note, Program, render_program, render_programs
from data_prep.notes.soundfont import load_soundfont, without_effects
from spaudio.errors import DataError

RATE = 16_000
NOTES = tuple(Note(pitch, 100, 0.05, 0.7) for pitch in (57, 69, 81))
PROGRAMS = [Program(number, NOTES[:2]) for number in (0, 19, 40)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dry() -> bytes:
    return without_effects(load_soundfont())


@pytest.mark.parametrize("program", [19, 73], ids=["church-organ", "flute"])
def test_a_note_has_its_pitch_and_its_time(dry: bytes, program: int) -> None:
    clips = render_program(dry, Program(program, NOTES), RATE)
    for note, clip in zip(NOTES, clips, strict=True):
        assert clip.shape == (CLIP_SECONDS * RATE,)
        onset = round(note.onset * RATE)
        assert np.abs(clip[: onset - RATE // 100]).max() < 2e-4
        assert np.abs(clip[onset : onset + RATE // 4]).max() > 0.02
        tone = clip[onset + 1600 : onset + 9600] * np.hanning(8000)
        spectrum = np.abs(np.fft.rfft(tone, 1 << 16))
        frequencies = np.fft.rfftfreq(1 << 16, 1 / RATE)
        wanted = 440 * 2 ** ((note.pitch - 69) / 12)
        # Strongest near the fundamental or one of its octaves (organ stops, breath).
        strongest = frequencies[np.argmax(spectrum)]
        octaves = np.log2(strongest / wanted)
        assert octaves == pytest.approx(round(octaves), abs=0.02)


def test_a_note_does_not_depend_on_the_one_before(dry: bytes) -> None:
    """No tail of a released note, and none of its reverberation, reaches the next clip."""
    soft = Note(60, 48, 0.05, 0.7)
    for program in (50, 65, 48, 14):  # the longest releases and the most reverberation
        loud_first = render_program(dry, Program(program, (Note(72, 120, 0.1, 0.8), soft)), RATE)
        assert np.abs(loud_first[1][: RATE // 25]).max() < 2e-4


def test_effects_are_what_is_taken_out() -> None:
    wet = load_soundfont()
    dry = without_effects(wet)
    assert len(dry) == len(wet)
    changed = [i for i in range(0, len(wet), 2) if wet[i : i + 2] != dry[i : i + 2]]
    assert len(changed) > 100
    for place in changed:
        (operator,) = struct.unpack_from("<H", wet, place - 2)
        assert operator in (15, 16)  # chorusEffectsSend, reverbEffectsSend
        assert dry[place : place + 2] == b"\0\0"
    # Without this the test above would be in vain: the wet rendering has a tail.
    notes = (Note(72, 120, 0.1, 0.8), Note(60, 48, 0.05, 0.7))
    tail = render_program(wet, Program(65, notes), RATE)[1][: RATE // 25]
    assert np.abs(tail).max() > 1e-3


def test_two_renderings_are_equal_whatever_the_workers(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("again", 1), ("two", 2)):
        render_programs(
            PROGRAMS, tmp_path / name, sample_rate=RATE, workers=workers, progress=False
        )
    first = files(tmp_path / "one")
    assert set(first) == {f"{n:03d}/{p:03d}_100.flac" for n in (0, 19, 40) for p in (57, 69)}
    assert files(tmp_path / "again") == first
    assert files(tmp_path / "two") == first
    info = soundfile.info(tmp_path / "one" / "000" / "057_100.flac")
    assert (info.samplerate, info.frames, info.subtype) == (RATE, RATE, "PCM_16")


def test_rendering_is_resumed_by_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []

    def interrupted(soundfont: bytes, program: Program, rate: int) -> list[np.ndarray]:
        rendered.append(program.number)
        if program.number == 19 and rendered.count(19) == 1:
            raise KeyboardInterrupt
        return render_program(soundfont, program, rate)

    monkeypatch.setattr(sys.modules[render_program.__module__], "render_program", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render_programs(PROGRAMS, tmp_path, sample_rate=RATE, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"000"}
    (tmp_path / ".killed.tmp").mkdir()  # what a killed process leaves
    render_programs(PROGRAMS, tmp_path, sample_rate=RATE, progress=False)
    assert rendered == [0, 19, 19, 40]
    assert {path.name for path in tmp_path.iterdir()} == {"000", "019", "040"}


def test_a_failing_process_is_told(tmp_path: Path) -> None:
    bad = [Program(0, NOTES[:1]), Program(300, NOTES[:1])]
    with pytest.raises(DataError, match="failed in a process"):
        render_programs(bad, tmp_path, sample_rate=RATE, workers=2, progress=False)
    assert not (tmp_path / "300").exists()


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs pretty_midi.*spaudio\[demo\]"):
        load_soundfont()


def test_what_is_no_soundfont_is_refused() -> None:
    with pytest.raises(DataError, match="not a SoundFont"):
        without_effects(b"RIFF....WAVE" + bytes(100))
