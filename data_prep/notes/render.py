"""Renders notes of General-MIDI programs to one-second clips, several programs at a time.

One MIDI file per program holds all its notes at a fixed spacing; its rendering is cut afterwards.
The renderer (midirenderer, based on rustysynth) gives the same bytes each time. It holds Python's
global interpreter lock, hence the processes. They are not started by `multiprocessing`, which would
import the caller's main module in each of them.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spaudio.audio.wav import write_wav
from spaudio.errors import DataError
from spaudio.io.atomic import remove_folder
from spaudio.io.parent import end_with_parent, with_parent
from spaudio.io.progress import progress_bar

from .soundfont import load_soundfont, without_effects

CLIP_SECONDS = 1.0
#: Increase this with any change that alters the rendered bytes.
VERSION = 3
_SPACING = 1.05  # s; sound is cut off between two clips
_CUT = 1.02  # s after the clip's start; the last one ends the rendering
_BATCH = 4  # programs per process
# MIDI controllers that keep a note and its reverberation out of the next clip.
_VOLUME, _EXPRESSION, _REVERB, _CHORUS, _ALL_SOUND_OFF = 7, 11, 91, 93, 120
_SETUP = ((_VOLUME, 127), (_EXPRESSION, 127), (_REVERB, 0), (_CHORUS, 0))


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
        return f"{self.pitch:03d}_{self.velocity:03d}.wav"


@dataclass(frozen=True)
class Program:
    """A General-MIDI program (0 to 127) and its notes."""

    number: int
    notes: tuple[Note, ...]


def render_program(
    soundfont: bytes, program: Program, sample_rate: int
) -> list[NDArray[np.float32]]:
    """Renders one waveform of `CLIP_SECONDS` per note.

    Args:
        soundfont: SoundFont 2 file without effects (see `without_effects`).
        program: Program and notes.
        sample_rate: Rate of the clips in Hz.
    """
    import midirenderer

    wave = midirenderer.render_wave_from(soundfont, _midi(program))
    stereo, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = soxr.resample(stereo.mean(axis=1, dtype=np.float32), rate, sample_rate, quality="HQ")
    length = round(CLIP_SECONDS * sample_rate)
    starts = (round(place * _SPACING * sample_rate) for place in range(len(program.notes)))
    return [mono[start : start + length] for start in starts]


def render_programs(
    programs: Sequence[Program],
    folder: Path,
    *,
    sample_rate: int,
    workers: int | None = None,
) -> None:
    """Renders programs into ``folder/<program>/<pitch>_<velocity>.wav``, 16 bits.

    A program's folder appears whole or not at all; complete ones are kept. ``workers`` is the
    number of processes: 1 renders in the current one, None uses one per thread of torch.

    Raises:
        DataError: If pretty_midi or midirenderer is missing, or a process fails.
    """
    rest = []
    for program in programs:
        clips = folder / f"{program.number:03d}"
        if not all((clips / note.file_name).is_file() for note in program.notes):
            if clips.is_dir():
                remove_folder(clips)
            rest.append(program)
    if not rest:
        return
    load_soundfont()
    import torch  # here, because the processes do not need it

    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    workers = workers or torch.get_num_threads()
    render = _render_here if workers == 1 else _render_apart
    batches = [rest[i : i + _BATCH] for i in range(0, len(rest), _BATCH)]
    done = len(programs) - len(rest)
    pool = ThreadPoolExecutor(workers)
    try:
        with progress_bar("Rendering programs", len(programs), done=done) as advance:
            for number in pool.map(lambda batch: render(batch, folder, sample_rate), batches):
                advance(number)
    finally:
        pool.shutdown(cancel_futures=True)


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


def _render_here(programs: Sequence[Program], folder: Path, sample_rate: int) -> int:
    soundfont = without_effects(load_soundfont())
    for program in programs:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".tmp") as made:
            staging = Path(made) / "clips"
            staging.mkdir()
            clips = render_program(soundfont, program, sample_rate)
            for note, waveform in zip(program.notes, clips, strict=True):
                write_wav(staging / note.file_name, waveform, sample_rate, "PCM_16")
            staging.rename(folder / f"{program.number:03d}")
    return len(programs)


def _render_apart(programs: Sequence[Program], folder: Path, sample_rate: int) -> int:
    checkout = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", "from data_prep.notes.render import serve; serve()"],
        input=json.dumps([[astuple(p) for p in programs], str(folder), sample_rate]),
        capture_output=True,
        text=True,
        env=with_parent({**os.environ, "PYTHONPATH": path}),
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise DataError(f"rendering notes failed in a process ({reason}); prepare again")
    return len(programs)


def serve() -> None:
    """Renders a job read from standard input; ends with the process that has started it."""
    end_with_parent()
    items, folder, sample_rate = json.load(sys.stdin)
    programs = [Program(n, tuple(Note(*note) for note in notes)) for n, notes in items]
    _render_here(programs, Path(folder), sample_rate)
