"""Notes of General-MIDI instruments, rendered from the SoundFont that pretty_midi ships.

These are sampled instruments played by a synthesizer, one note per clip, without reverberation, and
not recordings of musicians. Several programs of the SoundFont consist of the same samples
(acoustic, bright and honky-tonk piano; violin and viola; even across families, dulcimer and steel
guitar), so programs that share a sample are in the same split: no sample in test or validation is
in training, except with ``task=program``, which splits by pitch.

    python -m data_prep.notes [task=family|program|pitch] [split_seed=0]
"""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.decode import check_rate
from spaudio.audio.split import check_split_seed, seeded_order
from spaudio.errors import ConfigError

from .render import CLIP_SECONDS, VERSION, Note, Program, render_programs
from .soundfont import FAMILIES, PROGRAMS_PER_FAMILY, load_soundfont, program_samples

TASKS = ("family", "program", "pitch")
VELOCITIES = (48, 120)  # softest and loudest
_ONSET = (0.0, 0.1)  # s, range of the seeded jitter
_LENGTH = (0.5, 0.8)  # s
_ATTEMPTS = 300  # to draw a split; the default needs a few
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def prepare(
    work: Path,
    *,
    source: str | None = None,
    task: str = "family",
    families: list[str] = FAMILIES,
    programs_per_family: int = PROGRAMS_PER_FAMILY,
    num_pitches: int = 20,
    lowest_pitch: int = 39,
    pitch_step: int = 2,
    num_velocities: int = 4,
    note_rate: int = 16_000,
    split_seed: int = 0,
) -> SourceClips:
    """Renders the notes, unless they exist already, and lists them; the group is the program.

    The default pitches, every second one from 39 (D#2) to 77 (F5), avoid a gap of this SoundFont:
    its alto saxophone has no sample for 64 (E4).

    Args:
        work: Folder to render into.
        source: Must be None; nothing is read.
        task: ``"family"`` (validation and test are programs never trained on), ``"pitch"`` (a
            class per pitch; same split) or ``"program"`` (validation and test are pitches never
            trained on).
        families: Names of the families (see `FAMILIES`).
        programs_per_family: 3 to 8. Of 8, 2 or 3 are used for the test and 1 or 2 for validation.
        num_pitches: Pitches of each program.
        lowest_pitch: MIDI number.
        pitch_step: Semitones between pitches.
        num_velocities: Velocities of each pitch, evenly spaced in `VELOCITIES`.
        note_rate: Sample rate of the rendered clips, in Hz.
        split_seed: Seed of the split and of the jitter of onsets and lengths, from 0.

    Raises:
        ConfigError: If an option is unknown or out of range.
        DataError: If pretty_midi or midirenderer is not installed.
    """
    if source is not None:
        raise ConfigError(f"source={source!r}; notes are rendered, not read: leave source out")
    if task not in TASKS:
        raise ConfigError(f"task={task!r}; expected one of {', '.join(TASKS)}")
    check_split_seed(split_seed)
    check_rate(note_rate, "note_rate")
    soundfont = load_soundfont()
    import pretty_midi

    units = _units(program_samples(soundfont))
    numbers = _programs(families, programs_per_family, units)
    pitches = _pitches(num_pitches, lowest_pitch, pitch_step, task)
    velocities = _velocities(num_velocities)
    programs = [_program(number, pitches, velocities, split_seed) for number in numbers]
    root = work / f"rendered-{_key(programs, note_rate)}"
    render_programs(programs, root, sample_rate=note_rate)
    splits = (
        _split_pitches(pitches, split_seed)
        if task == "program"
        else _split_programs(numbers, units, programs_per_family, split_seed)
    )
    names = {number: pretty_midi.program_to_instrument_name(number) for number in numbers}
    clips = []
    for number, note in ((program.number, note) for program in programs for note in program.notes):
        labels = (FAMILIES[_family(number)], names[number], pitch_name(note.pitch))
        label = dict(zip(TASKS, labels, strict=True))[task]
        split = splits[note.pitch if task == "program" else number]
        clips.append(SourceClip(f"{number:03d}/{note.file_name}", label, split, names[number]))
    return SourceClips(root, clips, labels=tuple(dict.fromkeys(clip.label for clip in clips)))


def pitch_name(pitch: int) -> str:
    """Returns the scientific name of a MIDI pitch: 60 is C4, 69 is A4 (440 Hz)."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def _units(samples: Mapping[int, frozenset[int]]) -> dict[int, int]:
    """Returns the lowest program that each program shares samples with, directly or via others."""
    units: dict[int, int] = {}
    heard: dict[int, frozenset[int]] = {}  # samples of each unit
    for program in range(len(FAMILIES) * PROGRAMS_PER_FAMILY):
        joined = sorted(unit for unit, known in heard.items() if known & samples[program])
        unit = min([*joined, program])
        heard[unit] = samples[program].union(*(heard.pop(other) for other in joined))
        units = {p: unit if u in joined else u for p, u in units.items()} | {program: unit}
    return units


def _programs(families: Sequence[str], per_family: int, units: Mapping[int, int]) -> list[int]:
    """Chooses ``per_family`` programs per family, preferring those that share no samples."""
    if unknown := [family for family in families if family not in FAMILIES]:
        raise ConfigError(f"families has {unknown[0]!r}; expected some of {', '.join(FAMILIES)}")
    if len(set(families)) < 2:
        raise ConfigError(f"families={list(families)!r}; at least two are needed")
    if not 3 <= per_family <= PROGRAMS_PER_FAMILY:
        raise ConfigError(
            f"programs_per_family={per_family!r}; expected 3 to {PROGRAMS_PER_FAMILY}, so that "
            "training, validation and test have one each"
        )
    chosen: list[int] = []
    for family in sorted(map(FAMILIES.index, set(families))):
        ranked: list[tuple[int, int]] = []  # count of earlier ones with its samples, program
        for program in range(family * PROGRAMS_PER_FAMILY, (family + 1) * PROGRAMS_PER_FAMILY):
            ranked.append((sum(units[p] == units[program] for _, p in ranked), program))
        chosen += sorted(program for _, program in sorted(ranked)[:per_family])
    return chosen


def _pitches(number: int, lowest: int, step: int, task: str) -> range:
    least = 1 if task == "family" else 3
    if number < least or step < 1 or lowest < 0 or lowest + (number - 1) * step > 127:
        raise ConfigError(
            f"num_pitches={number!r}, lowest_pitch={lowest!r}, pitch_step={step!r}; expected at "
            f"least {least} pitches within 0 to 127"
        )
    return range(lowest, lowest + number * step, step)


def _velocities(number: int) -> list[int]:
    softest, loudest = VELOCITIES
    most = loudest - softest + 1
    if not 1 <= number <= most:
        raise ConfigError(f"num_velocities={number!r}; expected 1 to {most} of them")
    if number == 1:
        return [loudest]
    return [softest + (loudest - softest) * place // (number - 1) for place in range(number)]


def _program(number: int, pitches: Sequence[int], velocities: Sequence[int], seed: int) -> Program:
    random = np.random.default_rng([seed, number])
    notes = []
    for pitch, velocity in product(pitches, velocities):
        onset, length = (round(float(random.uniform(*span)), 4) for span in (_ONSET, _LENGTH))
        notes.append(Note(pitch, velocity, onset, length))
    return Program(number, tuple(notes))


def _split_programs(
    programs: Sequence[int], units: Mapping[int, int], per_family: int, seed: int
) -> dict[int, str]:
    """Draws whole units until each family has its share; returns the split of each program."""
    least = {"test": max(1, per_family // 4), "valid": max(1, per_family // 8), "train": 1}
    families = set(map(_family, programs))
    for attempt in range(_ATTEMPTS):
        slack = 1 + 3 * attempt // _ATTEMPTS  # programs that a split may take beyond its share
        names = {f"{attempt}:{unit}": unit for unit in {units[p] for p in programs}}
        splits = dict.fromkeys(programs, "train")
        shares = {split: Counter[int]() for split in least}
        for split in ("test", "valid"):
            have, most = shares[split], least[split] + slack
            for unit in (names[name] for name in seeded_order(names, seed)):
                members = [p for p in programs if units[p] == unit and splits[p] == "train"]
                more = Counter(map(_family, members))
                wanted = any(have[family] < least[split] for family in more)
                if wanted and all(have[family] + n <= most for family, n in more.items()):
                    splits |= dict.fromkeys(members, split)
                    have.update(more)
        shares["train"].update(_family(p) for p, split in splits.items() if split == "train")
        if all(shares[split][f] >= number for split, number in least.items() for f in families):
            return splits
    raise ConfigError(
        f"programs_per_family={per_family!r}: no split keeps shared samples apart; give another "
        "number or other families"
    )


def _family(program: int) -> int:
    return program // PROGRAMS_PER_FAMILY


def _split_pitches(pitches: Sequence[int], seed: int) -> dict[int, str]:
    number, order = len(pitches), seeded_order(map(str, pitches), seed)
    splits = ["test"] * max(1, number // 5) + ["valid"] * max(1, number // 10) + ["train"] * number
    return {int(pitch): split for pitch, split in zip(order, splits, strict=False)}


def _key(programs: Sequence[Program], sample_rate: int) -> str:
    """Hashes everything that determines the rendered bytes."""
    recipe = {
        "programs": [asdict(program) for program in programs],
        "sample_rate": sample_rate,
        "seconds": CLIP_SECONDS,
        "version": VERSION,
        "soundfont": hashlib.sha256(load_soundfont()).hexdigest(),
        "versions": [importlib.metadata.version(name) for name in ("midirenderer", "soxr")],
    }
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
