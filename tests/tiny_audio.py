"""Tiny data sets, made from a seed: ``python -m tests.tiny_audio FOLDER``.

Every class has a sound of its own (hum, hiss or sweep at a pitch of its own), so that a model can
learn it in seconds; every group (speaker) has a level of its own.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 8000  # Hz
SPEAKERS = ("george", "jackson", "theo")
CLASSES = ("hum", "hiss", "sweep")
FORMATS = ("wav", "flac", "ogg", "WAV", "mp3", "aiff")


def tone(
    kind: int, random: np.random.Generator, seconds: float | None = None
) -> NDArray[np.float32]:
    """A hum, a hiss or a sweep by ``kind % 3``, its frequency by ``kind``; shape (samples,)."""
    seconds = random.uniform(0.25, 0.4) if seconds is None else seconds
    time = np.arange(round(seconds * RATE)) / RATE
    frequency = 200.0 * 1.25**kind * random.uniform(0.97, 1.03)
    if kind % 3 == 0:
        wave = np.sin(2 * np.pi * frequency * time)
    elif kind % 3 == 1:
        noise = random.standard_normal(len(time))
        wave = 0.3 * noise * np.sin(2 * np.pi * frequency * time)
    else:
        wave = np.sin(2 * np.pi * frequency * (time + time**2 / seconds))
    hiss = 0.005 * random.standard_normal(len(time))
    return (0.5 * wave + hiss).clip(-1, 1).astype(np.float32)


def make_fsdd(
    folder: Path,
    *,
    digits: Sequence[int] = range(10),
    speakers: Sequence[str] = SPEAKERS,
    clips: int = 8,
    seed: int = 0,
) -> Path:
    """Free Spoken Digits' layout: ``recordings/{digit}_{speaker}_{index}.wav``; returns folder."""
    random = np.random.default_rng(seed)
    recordings = folder / "recordings"
    recordings.mkdir(parents=True)
    for digit in digits:
        for place, speaker in enumerate(speakers):
            for index in range(clips):
                wave = tone(digit, random) / (place + 1)
                path = recordings / f"{digit}_{speaker}_{index}.wav"
                soundfile.write(path, wave, RATE, subtype="PCM_16")
    (folder / "README.md").write_text("A tiny stand-in.\n", encoding="utf-8")
    return folder


def make_fsdd_zip(archive: Path, *, seed: int = 0) -> Path:
    """The same as upstream's archive: one top folder in a zip; returns ``archive``."""
    staging = archive.with_suffix(".staging")
    make_fsdd(staging / "free-spoken-digit-dataset-master", seed=seed)
    shutil.make_archive(str(archive.with_suffix("")), "zip", staging)
    shutil.rmtree(staging)
    return archive


def make_class_folders(
    folder: Path,
    *,
    classes: Sequence[str] = CLASSES,
    groups: int = 5,
    clips: int = 4,
    seed: int = 0,
) -> Path:
    """``<class>/g<group>_<index>.<format>`` in several formats and depths; returns folder."""
    random = np.random.default_rng(seed)
    for kind, label in enumerate(classes):
        for group in range(groups):
            for index in range(clips):
                suffix = FORMATS[(group + index) % len(FORMATS)]
                path = folder / label / ("deeper" if index == 1 else "") / f"g{group}_{index}"
                path.parent.mkdir(parents=True, exist_ok=True)
                wave = tone(kind, random) / (group + 1)
                soundfile.write(path.with_suffix(f".{suffix}"), wave, RATE)
        (folder / label / "notes.txt").write_text("not audio\n", encoding="utf-8")
    return folder


def make_bad_clips(folder: Path, *, seed: int = 0) -> dict[str, str]:
    """One file for each way of being bad; returns names, each with a word of the reason."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    wave = tone(0, random, seconds=0.5)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("This is not audio.\n" * 20, encoding="utf-8")
    for suffix in ("wav", "flac"):
        whole = folder / f"truncated.{suffix}"
        soundfile.write(whole, wave, RATE)
        content = whole.read_bytes()
        whole.write_bytes(content[: len(content) // 2])
    broken = wave.copy()
    broken[100] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    broken[100] = np.inf
    soundfile.write(folder / "infinite.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(RATE // 2, np.float32), RATE)
    soundfile.write(folder / "offset.wav", np.full(RATE // 2, 0.25, np.float32), RATE)
    soundfile.write(folder / "no_samples.wav", np.zeros(0, np.float32), RATE)
    soundfile.write(folder / "slow.wav", wave, 100)
    return {
        "empty.wav": "empty file",
        "text.wav": "not audio",
        "truncated.wav": "truncated",
        "truncated.flac": "damaged",
        "nan.wav": "not finite",
        "infinite.wav": "not finite",
        "silent.wav": "silent",
        "offset.wav": "silent",
        "no_samples.wav": "no samples",
        "slow.wav": "sample rate",
    }


def main(folder: Path) -> None:
    """Makes all of them below ``folder``."""
    make_fsdd(folder / "fsdd")
    make_fsdd_zip(folder / "fsdd.zip")
    make_class_folders(folder / "classes")
    make_bad_clips(folder / "bad")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
