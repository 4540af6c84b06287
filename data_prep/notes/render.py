"""Renders notes of General-MIDI programs to one-second clips, several programs at a time.

One MIDI file per program holds all its notes at a fixed spacing; its rendering is cut afterwards.
The renderer (midirenderer, based on rustysynth) gives the same bytes each time. It holds Python's
global lock, hence processes. They are not started by `multiprocessing`, which would import the
caller's main module in each of them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spaudio.errors import DataError
from spaudio.io.progress import progress_bar

from .soundfont import load_soundfont, without_effects

CLIP_SECONDS = 1.0
#: Raise this with any change that alters the rendered bytes.
VERSION = 2
_SPACING = 1.05  # s; the sound is cut between two clips
_CUT = 1.02  # s after the clip's start; the last one ends the rendering
# MIDI controllers that keep a note and its reverberation out of the next clip.
_VOLUME, _EXPRESSION, _REVERB, _CHORUS, _ALL_SOUND_OFF = 7, 11, 91, 93, 120
_SETUP = ((_VOLUME, 127), (_EXPRESSION, 127), (_REVERB, 0), (_CHORUS, 0))
_SUFFIX = ".flac"


@dataclass(frozen=True)
class Note:
    """A note in its clip: MIDI pitch and velocity, onset and length in seconds."""

    pitch: int
    velocity: int
    onset: float
    length: float

    @property
    def file_name(self) -> str:
        """Name of its clip in the program's folder."""
        return f"{self.pitch:03d}_{self.velocity:03d}{_SUFFIX}"


@dataclass(frozen=True)
class Program:
    """A General-MIDI program (0 to 127) and its notes."""

    number: int
    notes: tuple[Note, ...]

    @property
    def folder_name(self) -> str:
        """Name of the folder that holds its clips."""
        return f"{self.number:03d}"


def render_program(
    soundfont: bytes, program: Program, sample_rate: int
) -> list[NDArray[np.float32]]:
    """Renders a program's notes.

    Args:
        soundfont: SoundFont 2 file without effects (see `without_effects`).
        program: Program and notes.
        sample_rate: Rate of the clips in Hz.

    Returns:
        One waveform per note, each of `CLIP_SECONDS`.
    """
    import midirenderer

    wave = midirenderer.render_wave_from(soundfont, _midi(program))
    stereo, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = soxr.resample(stereo.mean(axis=1, dtype=np.float32), rate, sample_rate, quality="HQ")
    length = round(CLIP_SECONDS * sample_rate)
    starts = [round(place * _SPACING * sample_rate) for place in range(len(program.notes))]
    return [mono[start : start + length] for start in starts]


def render_programs(
    programs: Sequence[Program],
    folder: Path,
    *,
    sample_rate: int,
    workers: int = 1,
    progress: bool = True,
) -> None:
    """Renders programs into ``folder/<program>/<pitch>_<velocity>.flac``, 16 bits.

    A program's folder appears whole or not at all; existing ones are kept.

    Args:
        programs: What to render.
        folder: Output folder.
        sample_rate: Rate of the clips in Hz.
        workers: Processes; 1 renders in this one.
        progress: Show a bar.

    Raises:
        DataError: If pretty_midi or midirenderer is missing, or a process fails.
    """
    rest = [program for program in programs if not (folder / program.folder_name).is_dir()]
    if not rest:
        return
    load_soundfont()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.tmp"):
        shutil.rmtree(stale)
    done = len(programs) - len(rest)
    with progress_bar("Rendering programs", len(programs), done=done, show=progress) as advance:
        if workers <= 1:
            _render_share(rest, folder, sample_rate, lambda: advance(1))
        else:
            shares = [share for i in range(workers) if (share := rest[i::workers])]
            _render_in_processes(shares, folder, sample_rate, lambda: advance(1))


def _midi(program: Program) -> bytes:
    import pretty_midi

    change = pretty_midi.ControlChange
    instrument = pretty_midi.Instrument(program.number)
    instrument.control_changes = [change(number, value, 0.0) for number, value in _SETUP]
    for place, note in enumerate(program.notes):
        start = place * _SPACING
        onset = start + note.onset
        instrument.notes.append(
            pretty_midi.Note(note.velocity, note.pitch, onset, onset + note.length)
        )
        instrument.control_changes.append(change(_ALL_SOUND_OFF, 0, start + _CUT))
    song = pretty_midi.PrettyMIDI(resolution=960)
    song.instruments.append(instrument)
    file = io.BytesIO()
    song.write(file)
    return file.getvalue()


def _render_share(
    programs: Sequence[Program], folder: Path, sample_rate: int, advance: Callable[[], None]
) -> None:
    soundfont = without_effects(load_soundfont())
    for program in programs:
        clips = render_program(soundfont, program, sample_rate)
        staging = Path(tempfile.mkdtemp(dir=folder, suffix=".tmp", prefix="."))
        try:
            for note, waveform in zip(program.notes, clips, strict=True):
                soundfile.write(staging / note.file_name, waveform, sample_rate, subtype="PCM_16")
            staging.chmod(0o755)
            staging.rename(folder / program.folder_name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        advance()


def _render_in_processes(
    shares: Sequence[Sequence[Program]],
    folder: Path,
    sample_rate: int,
    advance: Callable[[], None],
) -> None:
    checkout = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    processes: list[subprocess.Popen[str]] = []

    def follow(process: subprocess.Popen[str], share: Sequence[Program]) -> None:
        job = {
            "programs": [asdict(program) for program in share],
            "folder": os.fspath(folder),
            "sample_rate": sample_rate,
        }
        assert process.stdin is not None
        assert process.stdout is not None
        lines = []
        with process.stdin as stdin:
            stdin.write(json.dumps(job))
        for line in process.stdout:
            if line.startswith("rendered "):
                advance()
            else:
                lines.append(line)
        if process.wait() != 0:
            reason = lines[-1].strip() if lines else f"exit code {process.returncode}"
            raise DataError(f"rendering notes failed in a process ({reason}); try workers=1")

    pool = ThreadPoolExecutor(len(shares))
    try:
        for _ in shares:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", "from data_prep.notes.render import serve; serve()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, "PYTHONPATH": path},
                )
            )
        for _ in pool.map(follow, processes, shares):
            pass
    finally:
        _stop(processes)
        pool.shutdown()


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait()


def serve() -> None:
    """Renders a job read from standard input; prints one line per program."""
    job = json.load(sys.stdin)
    programs = [
        Program(item["number"], tuple(Note(**note) for note in item["notes"]))
        for item in job["programs"]
    ]

    def report() -> None:
        sys.stdout.write("rendered one\n")
        sys.stdout.flush()

    _render_share(programs, Path(job["folder"]), job["sample_rate"], report)
