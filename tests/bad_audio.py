"""Files that must never become training examples, made from a seed, and what comes of them.

``python -m tests.bad_audio FOLDER`` puts good clips and all bad ones below FOLDER as a folder of
classes, decodes each, prepares the folder, and prints what was said of every file as JSON. In a
process of its own, because a bad file may hang or crash one.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_prep.folder import prepare as list_folder
from spaudio.audio import prepare
from spaudio.audio.decode import load_audio
from spaudio.errors import AudioError
from tests.tiny_audio import RATE, make_bad_clips, make_class_folders, tone

#: Where to cut a file: so many bytes from the start, or such a share of it, or from its end.
CUTS: dict[str, tuple[float, ...]] = {
    "wav": (1, 4, 12, 20, 36, 43, 45, 0.25, 0.75, -1),
    "flac": (1, 4, 20, 42, 0.25, 0.75, -1),
    "ogg": (1, 28, 100, 0.25, 0.75, -1),
    "opus": (40, 0.5, -1),
    "mp3": (1, 0.25, 0.75),
    "aiff": (8, 0.5, -1),
    "au": (20, 0.5, -1),
    "caf": (30, 0.5, -1),
    "w64": (50, 0.5, -1),
    "rf64": (50, 0.5, -1),
    "sph": (600, 0.5, -1),
}
_FORMATS = {"opus": ("OGG", "OPUS"), "sph": ("NIST", "PCM_16")}


def wav(
    samples: bytes = b"\1\2" * 800,
    *,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    declared: int | None = None,
) -> bytes:
    """A WAV file with any header: 44 bytes and the samples."""
    block = channels * bits // 8 % 65536
    declared = len(samples) if declared is None else declared
    layout = struct.pack("<HHIIHH", 1, channels, rate, rate * block % 2**32, block, bits)
    return (
        b"RIFF" + struct.pack("<I", 36 + declared) + b"WAVEfmt " + struct.pack("<I", 16) + layout
        + b"data" + struct.pack("<I", declared) + samples
    )  # fmt: skip


def make_bad_audio(folder: Path, *, seed: int = 0) -> dict[str, str]:
    """Makes all of them in ``folder``; returns names, each with a word of the reason."""
    reasons = make_bad_clips(folder, seed=seed)
    random = np.random.default_rng(seed)
    wave = tone(0, random, seconds=0.5)
    for making in (_cut, _headers, _samples, _no_audio, _no_files):
        reasons |= making(folder, wave, random)
    return reasons


def _cut(folder: Path, wave: Any, random: np.random.Generator) -> dict[str, str]:
    reasons = {}
    wave = tone(1, random, seconds=3)  # several pages of Ogg
    for suffix, cuts in CUTS.items():
        form, subtype = _FORMATS.get(suffix, (suffix.upper(), None))
        whole = folder / "whole"
        soundfile.write(whole, wave, RATE, format=form, subtype=subtype)
        content = whole.read_bytes()
        whole.unlink()
        for cut in cuts:
            # A share lies between 0 and 1.
            length = round(len(content) * cut) if 0 < cut < 1 else int(cut)
            name = f"cut_{cut}.{suffix}"
            (folder / name).write_bytes(content[:length])
            reasons[name] = ""  # which one depends on what was lost
        if suffix in ("flac", "ogg"):
            flipped = bytearray(content)
            flipped[len(content) // 2] ^= 0x55
            (folder / f"flipped.{suffix}").write_bytes(flipped)
            reasons[f"flipped.{suffix}"] = ""
    return reasons


def _headers(folder: Path, wave: Any, random: np.random.Generator) -> dict[str, str]:
    hours = 3 * 3600 * RATE * 2
    files = {
        "0_hz.wav": (wav(rate=0), ""),
        "1_hz.wav": (wav(rate=1), "sample rate of 1 Hz"),
        "10_mhz.wav": (wav(rate=10_000_000), "sample rate of 10000000 Hz"),
        "4_ghz.wav": (wav(rate=2**32 - 1), ""),
        "3_hours_in_44_bytes.wav": (wav(b"", declared=hours), "no samples"),
        "3_hours_in_46_bytes.wav": (wav(b"\1\2", declared=hours), "truncated"),
        "0_channels.wav": (wav(channels=0), ""),
        "32_channels.wav": (wav(bytes(random.bytes(6400)), channels=32), "32 channels"),
        "65535_channels.wav": (wav(channels=65535), ""),
        "0_bits.wav": (wav(bits=0), ""),
        "13_samples_of_99_bits.wav": (wav(bits=99), ""),
        "no_chunks.wav": (b"RIFF\4\0\0\0WAVE", "not audio"),
        "only_data.wav": (wav().replace(b"fmt ", b"junk"), "not audio"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    soundfile.write(folder / "amiga.svx", wave, RATE, format="SVX", subtype="PCM_16")
    soundfile.write(folder / "matlab.wav", wave, RATE, format="MAT5", subtype="PCM_16")
    (folder / "headerless.au").write_bytes(b"\1\2" * 800)
    reasons = {name: reason for name, (_, reason) in files.items()}
    endless = ("amiga.svx", "matlab.wav", "headerless.au")
    return reasons | dict.fromkeys(endless, "does not tell where it ends")


def _samples(folder: Path, wave: Any, random: np.random.Generator) -> dict[str, str]:
    left, steps = np.stack([wave, wave], 1), np.zeros(RATE, np.int16)
    left[7, 0] = np.nan
    steps[::2] = 1
    clips: dict[str, tuple[Any, str]] = {
        "nan_in_one_channel.wav": (left, "1 of 4000 samples are not finite"),
        "all_nan.wav": (np.full_like(wave, np.nan), "not finite"),
        "minus_infinite.wav": (np.full_like(wave, -np.inf), "not finite"),
        "overflowing.wav": (np.full_like(wave, 3e38) * np.sign(wave), "as large as 3e+38"),
        "dither.wav": (steps, "silent"),
        "opposite_channels.wav": (np.stack([wave, -wave], 1), "silent"),
        "stuck_at_full_scale.wav": (np.ones_like(wave), "silent"),
        "one_sample.wav": (wave[:1], "a single sample"),
    }
    for name, (samples, _) in clips.items():
        subtype = None if samples.dtype == np.int16 else "FLOAT"
        soundfile.write(folder / name, samples, RATE, subtype=subtype)
    soundfile.write(folder / "silent.flac", np.zeros(RATE, np.float32), RATE)
    soundfile.write(folder / "silent.ogg", np.zeros(RATE, np.float32), RATE)
    reasons = {name: reason for name, (_, reason) in clips.items()}
    return reasons | dict.fromkeys(("silent.flac", "silent.ogg"), "silent")


def _no_audio(folder: Path, wave: Any, random: np.random.Generator) -> dict[str, str]:
    files = {
        "picture.wav": b"\x89PNG\r\n\x1a\n" + random.bytes(2000),
        "archive.flac": b"PK\3\4" + random.bytes(2000),
        "page.ogg": b"<!DOCTYPE html><title>404</title>" * 20,
        "tag_without_sound.mp3": b"ID3\4\0\0\0\0\7\x76" + bytes(1014),
        "noise.wav": random.bytes(5000),
        "zeros.mp3": bytes(5000),
        "film.mp4": b"\0\0\0\x20ftypisom" + random.bytes(2000),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return dict.fromkeys(files, "not audio")


def _no_files(folder: Path, wave: Any, random: np.random.Generator) -> dict[str, str]:
    name = os.fsdecode(b"caf\xe9.wav")  # Latin-1
    soundfile.write(folder / "latin.wav", wave, RATE)
    (folder / "latin.wav").rename(folder / name)
    (folder / "loop_a.wav").symlink_to("loop_b.wav")
    (folder / "loop_b.wav").symlink_to("loop_a.wav")
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "endless.wav").symlink_to("/dev/zero")
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    return {
        name: "not UTF-8",
        "loop_a.wav": "symbolic link",
        "loop_b.wav": "symbolic link",
        "dangling.wav": "no such file",
        "endless.wav": "not a file",
        "folder.wav": "not a file",
        "pipe.wav": "not a file",
    }


def main(folder: Path) -> None:
    """Makes, decodes and prepares them, and prints what was said of each."""
    source = make_class_folders(folder / "source")
    reasons = make_bad_audio(source / "hum")
    decoded = {name: _reason(load_audio, source / "hum" / name) for name in reasons}
    prepared = prepare(
        "bad",
        lambda work: list_folder(work, source=str(source)),
        folder=folder / "data",
        options={},
        skip_bad=True,
        workers=2,
        progress=False,
    )
    said = {
        "wanted": reasons,
        "decoded": decoded,
        "skipped": dict(prepared.skipped),
        "clips": [clip.path for clip in prepared.clips],
    }
    json.dump(said, sys.stdout)


def _reason(load: Callable[[Path], Any], path: Path) -> str:
    try:
        samples = load(path)
    except AudioError as error:
        return str(error)
    return f"taken, with {len(samples)} samples"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
