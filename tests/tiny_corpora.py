"""Tiny stand-ins for large data sets, each in its upstream's layout, made from a seed."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from tests.tiny_audio import tone

RATE = 16_000  # Hz


def write_tone(path: Path, kind: int, random: np.random.Generator, seconds: float = 0.4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(kind, random, seconds=2 * seconds), RATE)  # an octave up


def spoil(path: Path) -> None:
    """Cuts a file in half, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pack(folder: Path, archive: Path) -> Path:
    """Packs what is in ``folder`` as ``tar czf ARCHIVE -C FOLDER .`` does."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, ".")
    return archive


def make_speech_commands(
    folder: Path, *, words: Sequence[str] = ("yes", "no", "up", "bed", "cat"), seed: int = 0
) -> Path:
    """Words by six speakers, the last two of whom the lists name; ten seconds of noises."""
    random = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for kind, word in enumerate(words):
        for speaker in range(6):
            for take in range(2):
                name = f"{word}/{speaker:08x}_nohash_{take}.wav"
                write_tone(folder / name, kind, random)
                if speaker >= 4:
                    lists["testing_list.txt" if speaker == 5 else "validation_list.txt"] += [name]
    for name in ("white_noise", "running_tap"):
        path = folder / "_background_noise_" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * random.standard_normal(10 * RATE), RATE)
    (folder / "_background_noise_" / "README.md").write_text("Noises.\n", encoding="utf-8")
    for name, lines in lists.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def make_speech_commands_test_set(folder: Path, *, seed: int = 1) -> Path:
    """The separate test archive: commands, unknown words, silence (of zeros, in one)."""
    random = np.random.default_rng(seed)
    for kind, word in enumerate(("yes", "no", "up", "_unknown_")):
        for take in range(3):
            write_tone(folder / word / f"{take:08x}_nohash_0.wav.wav", kind, random)
    silence = folder / "_silence_" / "a.wav"
    silence.parent.mkdir()
    soundfile.write(silence, np.zeros(RATE), RATE)
    soundfile.write(silence.with_name("b.wav"), 0.01 * random.standard_normal(RATE), RATE)
    return folder


def make_nsynth(folder: Path, *, seed: int = 0) -> Path:
    """``nsynth-SPLIT/{audio/*.wav,examples.json}``; test and validation share instruments."""
    random = np.random.default_rng(seed)
    families = ("bass", "brass", "flute", "guitar", "keyboard")
    for split, instruments in (("train", range(4)), ("valid", [4, 5]), ("test", [4, 5])):
        notes = {}
        for kind in (0, 1, 4):
            for instrument in instruments:
                source = ("acoustic", "electronic", "synthetic")[instrument % 3]
                name = f"{families[kind]}_{source}_{kind}{instrument:02d}"
                for pitch in (60, 62) if split == "test" else (60, 61, 62):
                    note = f"{name}-{pitch:03d}-100"
                    write_tone(folder / f"nsynth-{split}/audio/{note}.wav", kind, random)
                    notes[note] = {
                        "note": len(notes),
                        "note_str": note,
                        "instrument": 10 * kind + instrument,
                        "instrument_str": name,
                        "pitch": pitch,
                        "velocity": 100,
                        "sample_rate": RATE,
                        "qualities": [0, 1, 0],
                        "qualities_str": ["dark"],
                        "instrument_family": kind,
                        "instrument_family_str": families[kind],
                        "instrument_source": instrument % 3,
                        "instrument_source_str": source,
                    }
        (folder / f"nsynth-{split}/examples.json").write_text(json.dumps(notes, indent=4))
    return folder


def make_librispeech(folder: Path, *, subset: str = "train-clean-100", seed: int = 0) -> Path:
    """``LibriSpeech/SUBSET/SPEAKER/CHAPTER/*.flac``; speaker 26 has read one chapter only."""
    random = np.random.default_rng(seed)
    table = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    for kind, (speaker, chapters) in enumerate({"19": 3, "103": 4, "26": 1, "87": 2}.items()):
        table.append(f"{speaker:4} | F | {subset:16} | 25.03 | A Reader")
        for chapter in range(100, 100 + chapters):
            stem = folder / "LibriSpeech" / subset / speaker / str(chapter)
            for number in range(3):
                name = f"{speaker}-{chapter}-{number:04d}.flac"
                write_tone(stem / name, kind, random, seconds=random.uniform(0.3, 0.6))
            (stem / f"{speaker}-{chapter}.trans.txt").write_text("SAID SO\n", encoding="utf-8")
    table.append("14   | F | dev-other        | 25.03 | Another Reader")
    (folder / "LibriSpeech/SPEAKERS.TXT").write_text("\n".join(table) + "\n", encoding="utf-8")
    return folder


def make_fsd50k(folder: Path, *, seed: int = 0) -> Path:
    """``FSD50K.{dev_audio,eval_audio,ground_truth}``: one or two sounds a clip, and a parent."""
    random = np.random.default_rng(seed)
    names = ("Bark", "Chime", "Drip")
    rows: dict[str, list[str]] = {"dev": ["fname,labels,mids,split"], "eval": ["fname,labels,mids"]}
    for number in range(72):
        part = "eval" if number >= 48 else "dev"
        kinds = [[0], [1], [2], [0, 2], [1, 2], [0, 1]][number % 6]
        seconds = random.uniform(0.3, 0.8)
        wave = np.mean([tone(kind, random, seconds=2 * seconds) for kind in kinds], axis=0)
        path = folder / f"FSD50K.{part}_audio" / f"{1000 + number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE)
        labels = ",".join([*(names[kind] for kind in kinds), *["Animal"] * (0 in kinds)])
        split = {"eval": "", "dev": ",val" if number >= 36 else ",train"}[part]
        rows[part].append(f'{1000 + number},"{labels}","/m/0"{split}')
    truth = folder / "FSD50K.ground_truth"
    truth.mkdir()
    for part, lines in rows.items():
        (truth / f"{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = [f"{i},{name},/m/{i}\n" for i, name in enumerate(("Animal", *names))]
    (truth / "vocabulary.csv").write_text("".join(words), encoding="utf-8")
    return folder
