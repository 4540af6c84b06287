"""Tiny data sets with official folds or splits, made from a seed in their upstream's layout."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from tests.tiny_audio import tone

ESC10 = {  # target: category
    0: "dog", 1: "rooster", 10: "rain", 11: "sea_waves", 12: "crackling_fire",
    20: "crying_baby", 21: "sneezing", 38: "clock_tick", 40: "helicopter", 41: "chainsaw",
}  # fmt: skip
URBAN = ("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling",
         "engine_idling", "gun_shot", "jackhammer", "siren", "street_music")  # fmt: skip


def make_esc50(folder: Path, *, clips: int = 2, seed: int = 0) -> Path:
    """ESC-50's layout with the ten classes of ESC-10, and one clip of another class."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "filename": f"{fold}-{1000 * target + fold}-{'ABCDE'[take]}-{target}.wav",
            "fold": fold,
            "target": target,
            "category": category,
            "esc10": str(target != 3),
            "src_file": 1000 * target + fold,
            "take": "ABCDE"[take],
        }
        for target, category in {**ESC10, 3: "cow"}.items()
        for fold in range(1, 6)
        for take in range(clips)
    ]
    for row in rows:
        _write(folder / "audio" / str(row["filename"]), list(ESC10).index(row["target"])
               if row["target"] in ESC10 else 10, random, 44_100)  # fmt: skip
    _write_csv(folder / "meta/esc50.csv", rows)
    return folder


def make_urbansound8k(folder: Path, *, folds: int = 10, clips: int = 2, seed: int = 0) -> Path:
    """UrbanSound8K's layout: slices of one recording, all in one fold, mixed sample rates."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "slice_file_name": f"{100 * fold + kind}-{kind}-0-{take}.wav",
            "fsID": 100 * fold + kind,
            "start": 0.0,
            "end": 0.4,
            "salience": 1,
            "fold": fold,
            "classID": kind,
            "class": name,
        }
        for fold in range(1, folds + 1)
        for kind, name in enumerate(URBAN)
        for take in range(clips)
    ]
    for row in rows:
        path = folder / f"audio/fold{row['fold']}" / str(row["slice_file_name"])
        _write(path, int(str(row["classID"])), random, 44_100 if row["fold"] == 1 else 48_000)
    _write_csv(folder / "metadata/UrbanSound8K.csv", rows)
    return folder


def make_audiomnist(
    folder: Path, *, speakers: Iterable[int], digits: Sequence[int] = range(3), seed: int = 0
) -> Path:
    """AudioMNIST's layout, ``data/01/0_01_0.wav``; two recordings of each digit and speaker."""
    random = np.random.default_rng(seed)
    for speaker in speakers:
        for digit in digits:
            for index in range(2):
                name = f"data/{speaker:02}/{digit}_{speaker:02}_{index}.wav"
                _write(folder / name, digit, random, 48_000)
    (folder / "data/audioMNIST_meta.txt").write_text("{}\n", encoding="utf-8")
    return folder


def make_ravdess(folder: Path, *, seed: int = 0) -> Path:
    """RAVDESS's layout; of one actor a fold, two takes of each emotion."""
    random = np.random.default_rng(seed)
    for actor in (2, 3, 10, 8, 1):
        for i in range(16):
            name = f"03-01-{1 + i % 8:02}-01-01-{1 + i // 8:02}-{actor:02}.wav"
            _write(folder / f"Actor_{actor:02}" / name, i % 8, random, 48_000)
    return folder


def make_gtzan(
    folder: Path, tracks: Iterable[str], genres: Sequence[str], *, suffix: str, seed: int = 0
) -> Path:
    """GTZAN's layout, ``genres/blues/blues.00000.au``; tracks of 2 s."""
    random = np.random.default_rng(seed)
    for track in tracks:
        genre = track.partition(".")[0]
        path = folder / "genres" / genre / f"{track}.{suffix}"
        _write(path, genres.index(genre), random, 22_050, seconds=2.0)
    (folder / "genres" / "blues").mkdir(parents=True, exist_ok=True)
    return folder


def _write(
    path: Path, kind: int, random: np.random.Generator, rate: int, seconds: float | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # `tone` is made at 8 kHz; written at another rate it is shorter and higher, which is as good.
    stretch = rate / 8000
    wave = tone(kind, random, seconds=(seconds or random.uniform(0.25, 0.4)) * stretch)
    soundfile.write(path, wave, rate, subtype="PCM_16")


def _write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
