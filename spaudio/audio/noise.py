"""One-second cuts of long noise recordings: the silence between spoken words."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from spaudio.audio.decode import load_audio
from spaudio.errors import DataError
from spaudio.io.progress import progress_bar

SAMPLE_RATE = 16_000  # Hz
SECONDS = 1.0
#: Share of each recording, from its start, that each split is cut from: no second is in two splits.
STRETCHES = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}
QUIETEST = -40.0  # dB relative to the recording; the loudest cut is as loud as it
_VERSION = 1


def cut_noise(
    folder: Path, counts: Mapping[str, int], work: Path, seed: int
) -> tuple[Path, list[tuple[str, str, str]]]:
    """Cuts seconds out of a folder's recordings, at random places and levels.

    Args:
        folder: Holds WAV files of ten seconds or more.
        counts: Number of cuts for each split.
        work: The cuts go to a folder in it, which appears whole or not at all.
        seed: Decides places and levels.

    Returns:
        Folder of the cuts; and of each cut its name, its split and its recording's name.

    Raises:
        DataError: If there is no recording, or one is too short for its stretches.
        AudioError: If a recording cannot be read.
    """
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise DataError(f"{folder}: no recordings of noise (*.wav) to cut silence from")
    cuts = [
        (f"{split}/{number:05d}_{paths[number % len(paths)].stem}.wav", split, number)
        for split in STRETCHES
        for number in range(counts.get(split, 0))
    ]
    key = hashlib.sha256(f"v{_VERSION} {seed} {[name for name, *_ in cuts]}".encode())
    for path in paths:
        key.update(path.read_bytes())
    target = work / f"noise-{key.hexdigest()[:12]}"
    if not target.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=work, prefix=".noise."))
        try:
            _write(staging, paths, cuts, seed)
            staging.chmod(0o755)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target, [(name, split, paths[n % len(paths)].stem) for name, split, n in cuts]


def _write(staging: Path, paths: list[Path], cuts: list[tuple[str, str, int]], seed: int) -> None:
    waves = [load_audio(path, SAMPLE_RATE) for path in paths]
    length = round(SECONDS * SAMPLE_RATE)
    with progress_bar("Cutting noise", len(cuts)) as advance:
        for name, split, number in cuts:
            wave = waves[number % len(paths)]
            first, last = (round(share * len(wave)) for share in STRETCHES[split])
            if last - first < length:
                raise DataError(
                    f"{paths[number % len(paths)]}: {len(wave) / SAMPLE_RATE:g} s long; "
                    f"{SECONDS / (STRETCHES[split][1] - STRETCHES[split][0]):g} s are needed"
                )
            random = np.random.default_rng([seed, list(STRETCHES).index(split), number])
            start = int(random.integers(first, last - length + 1))
            gain = 10 ** (random.uniform(QUIETEST, 0) / 20)
            path = staging / name
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, gain * wave[start : start + length], SAMPLE_RATE, "PCM_16")
            advance(1)
