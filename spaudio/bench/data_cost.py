"""From a folder of audio files to features, beside loops over librosa and torchaudio."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import librosa
import soundfile
import torch

from spaudio.audio.decode import probe
from spaudio.audio.find import audio_files
from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.errors import ConfigError
from spaudio.experiment.compose import compose, quoted
from spaudio.experiment.data import load_data
from spaudio.experiment.settings import AudioSettings
from spaudio.io.resident import reset_peak, resident_bytes

COLUMNS = {
    "what": "{what}",
    "files": "{files:,}",
    "s": "{seconds:.2f}",
    "files/s": "{per_second:,.0f}",
    "relative to ours": "{times_ours:.2f}",
    "peak MiB": "{peak_mib:.0f}",
}


def measure(
    recipe: Path, source: Path, rounds: int, limit: float, *, cold: bool = False
) -> dict[str, Any]:
    """Times `recipes/folder`, from files to cached features, and plain loops.

    Ours lists and checks every clip, looks for duplicates, and writes a manifest, log-mel frames
    and the features of the classical floor, with one process and a worker per thread. The loops
    read one file after another and compute its log-mel frames with the same window, hop and bands.
    Files are in the system's cache after the first round, which is not counted. Peak memory is what
    this process holds, with its libraries; with one thread it has no workers beside it.

    Args:
        recipe: The folder `recipes/folder`.
        source: Folder with one sub-folder per class.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds after which no further round starts.
        cold: Remove the files from the system's cache before each measurement.

    Returns:
        ``title``, ``machine`` and ``rows``, one per method.

    Raises:
        ConfigError: If the recipe has no audio, there are no audio files, or not all have the run's
            sample rate, or the system cannot remove files from its cache.
        DataError: If a clip cannot be used.
    """
    if cold and not hasattr(os, "posix_fadvise"):
        raise ConfigError("--cold needs posix_fadvise, as on Linux; leave it out")
    settings = compose(recipe, [f"source={quoted(source)}"])
    if not isinstance(settings, AudioSettings):
        raise ConfigError(f"{recipe} has no audio files; give recipes/folder")
    rate = settings.tokens.sample_rate
    if not source.is_dir():
        raise ConfigError(f"{source}: no such folder; give one with a sub-folder per class")
    files = [source / path for path in sorted(audio_files(source))]
    other = [file for file in files if probe(file).sample_rate != rate]
    if not files or other:
        raise ConfigError(
            f"{other[0] if other else source}: the loops resample nothing; give a folder of "
            f"audio files at {rate} Hz"
        )
    with tempfile.TemporaryDirectory() as folder:
        rounds_so_far = count()

        def ours() -> object:
            data = Path(folder) / str(next(rounds_so_far))
            return load_data(replace(settings, data=str(data)), recipe)

        peaks: dict[str, list[int]] = {}

        def watched(name: str, function: Callable[[], object]) -> None:
            function()
            if (peak := resident_bytes("VmHWM")) is not None:
                peaks.setdefault(name, []).append(peak)

        def before() -> None:
            if cold:
                _forget(files)
            if resident_bytes("VmHWM") is not None:
                reset_peak()

        functions = {"ours": ours, **_loops(files, settings)}
        timed = {name: partial(watched, name, function) for name, function in functions.items()}
        seconds = take_turns(timed, rounds, limit, before=before)
    rows = [
        {
            "what": name,
            "files": len(files),
            "rounds": len(took),
            "seconds": median(took),
            "per_second": len(files) / median(took),
            "times_ours": ratio(took, seconds["ours"]),
            "peak_mib": median(peaks[name]) / 2**20 if peaks else None,
        }
        for name, took in seconds.items()
    ]
    title = f"{source.name}, {rate} Hz, {'not ' if cold else ''}in the file cache; "
    return {"title": title, "machine": machine(), "rows": rows}


def _forget(files: Sequence[Path]) -> None:
    """Removes files from the system's cache, so that they are read from the disk again."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())  # what is not yet on the disk stays in the cache
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _loops(files: list[Path], settings: AudioSettings) -> dict[str, Callable[[], object]]:
    tokens = settings.tokens
    rate, window = tokens.sample_rate, tokens.window_samples
    sizes: dict[str, Any] = {
        "n_fft": 1 << (window - 1).bit_length(),
        "win_length": window,
        "hop_length": tokens.hop_samples,
        "n_mels": tokens.spectrogram.n_mels,
    }

    def by_librosa() -> None:
        for file in files:
            samples, _ = librosa.load(file, sr=None)
            mel = librosa.feature.melspectrogram(y=samples, sr=rate, **sizes)
            librosa.power_to_db(mel)

    loops: dict[str, Callable[[], object]] = {"librosa": by_librosa}
    try:
        from torchaudio.transforms import MelSpectrogram
    except (ImportError, OSError):  # it does not load with every version of torch
        return loops
    transform = MelSpectrogram(rate, **sizes)

    def by_torchaudio() -> None:
        for file in files:
            samples, _ = soundfile.read(file, dtype="float32", always_2d=True)
            transform(torch.from_numpy(samples.T)).clamp_min(1e-10).log()

    return {**loops, "torchaudio": by_torchaudio}
