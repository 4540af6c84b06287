"""The class of all other sounds: clips cut from arbitrary recordings."""

import contextlib
import hashlib
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath

from spaudio.audio.chunks import cut_windows
from spaudio.audio.cuts import make_cuts, state_of
from spaudio.audio.decode import Waveform, is_silent, probe, stream_audio
from spaudio.audio.find import audio_files
from spaudio.audio.manifest import SourceClip
from spaudio.audio.source import link_parts
from spaudio.audio.split import seeded_order
from spaudio.audio.wav import write_wav
from spaudio.errors import AudioError, ConfigError, DataError, some
from spaudio.io.progress import progress_bar

BACKGROUND = "_background_"
_MEASURED = 200  # clips whose length is read
_VERSION = 8  # of the cuts; raise it with any change to them


def add_background(
    root: Path, clips: Sequence[SourceClip], folder: Path, work: Path, *, source: Path, seed: int
) -> tuple[Path, list[SourceClip], dict[str, str]]:
    """Adds the class of all other sounds to the clips of a source.

    Its clips have the median length of the others, and there are as many of them as the other
    classes have on average.

    Args:
        root: Folder of the clips, below the source or cut from it.
        clips: The clips, with their splits.
        folder: Holds the recordings of other sounds, at any depth.
        work: The clips are written to a folder in it.
        source: Folder of the source, which must not hold the other sounds, nor be among them.
        seed: Determines which clips are cut.

    Returns:
        The root of all clips; the clips; and the recordings of other sounds that cannot be used,
        each with the reason.

    Raises:
        ConfigError: If the class, or a folder of its name, exists already, or ``folder`` cannot be
            the background.
        DataError: For the reasons of `cut_background`, or if none of the clips can be read.
    """
    _check_folder(source, folder)
    labels = {clip.label for clip in clips}
    tops = sorted({PurePosixPath(clip.path).parts[0] for clip in clips})
    for what, names in (("class", labels), ("folder", tops)):
        if BACKGROUND in names:
            raise ConfigError(
                f"background={folder}: the source has a {what} {BACKGROUND} already; rename it, or "
                "leave background out"
            )
    splits = Counter(clip.split for clip in clips)
    counts = {s: math.ceil(n / len(labels)) for s, n in sorted(splits.items())}
    measured = seeded_order([clip.path for clip in clips], seed)[:_MEASURED]
    seconds = _median_seconds([root / path for path in measured])
    cuts, more, bad = cut_background(folder, work, seconds=seconds, counts=counts, seed=seed)
    parts = {top: root / top for top in tops}
    named = [replace(clip, path=f"{BACKGROUND}/{clip.path}") for clip in more]
    unusable = {f"{BACKGROUND}/{name}": why for name, why in bad.items()}
    return link_parts({**parts, BACKGROUND: cuts}, work), [*clips, *named], unusable


def _check_folder(source: Path, folder: Path) -> None:
    """Checks that the recordings of other sounds are not those of the source.

    Raises:
        ConfigError: If ``folder`` is not a folder, or is or holds part of the source.
    """
    if not folder.is_dir():
        raise ConfigError(f"background={folder}: no such folder; name a folder of recordings")
    if folder.resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            f"background={folder} is part of the source; move it out of {source}. Only "
            "a table with start and end may have the whole source as its background"
        )
    if source.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"background={folder} holds the source, whose clips would become background too; name "
            "a folder of other recordings"
        )


def _median_seconds(paths: Sequence[Path]) -> float:
    """Returns the median length of the clips that can be read; the others are reported later."""
    found = []
    for path in paths:
        with contextlib.suppress(AudioError):
            found.append(probe(path).seconds)
    if not found:
        raise DataError(
            f"none of {len(paths)} clips can be read, such as {paths[0]}; check the source"
        )
    return statistics.median(found)


def cut_background(
    folder: Path, work: Path, *, seconds: float, counts: Mapping[str, int], seed: int
) -> tuple[Path, list[SourceClip], dict[str, str]]:
    """Cuts clips out of recordings of any length, with a separate section for each split.

    All recordings are laid end to end in a random order and divided among the splits, so that no
    second is in two splits, whether there is one long recording or many short ones. Recordings that
    are shorter than a clip are taken whole. Silence is left out before they are divided.

    Args:
        folder: Holds the recordings, at any depth.
        work: The clips are written to a folder in it.
        seconds: Length of a clip.
        counts: Number of clips wanted per split; fewer are cut if there is less sound.
        seed: Determines which clips are cut.

    Returns:
        Folder of the clips; the clips, with paths relative to it; and the recordings that cannot be
        used, each with the reason. A clip is ``<recording>/<split>/<start>-<end>.wav``, in seconds;
        its group is the part of its recording in its split.

    Raises:
        DataError: If there is no recording, or not enough sound for a clip in each split.
    """
    names = sorted(audio_files(folder))
    if not names:
        raise DataError(f"{folder}: no audio files found to cut {BACKGROUND} from")
    target, bad = _cut(folder, work, names, seconds, counts, seed)
    clips = []
    for split in counts:
        found = sorted(path for path in target.rglob(f"{split}/*.wav") if path.is_file())
        if not found:
            unused = [f"{name} ({why})" for name, why in bad.items()]
            raise DataError(
                f"{folder}: not enough sound for a {BACKGROUND} clip of {seconds:.2g} s in each "
                "split, or only silence; add recordings"
                + (f", or repair those that cannot be used: {some(unused)}" if unused else "")
            )
        paths = [path.relative_to(target).as_posix() for path in found]
        clips += [SourceClip(path, BACKGROUND, split, path.rpartition("/")[0]) for path in paths]
    return target, clips, bad


def _cut(
    folder: Path,
    work: Path,
    names: Sequence[str],
    seconds: float,
    counts: Mapping[str, int],
    seed: int,
) -> tuple[Path, dict[str, str]]:
    """Cuts clips out of recordings, as `make_cuts` does."""
    key = hashlib.sha256(f"v{_VERSION} {seconds} {sorted(counts.items())} {seed}".encode())
    for name in names:
        key.update(os.fsencode(f"{name} {state_of(folder / name)}"))

    @cache
    def choice() -> tuple[dict[str, dict[int, str]], dict[str, AudioError]]:
        places, bad = _places_with_sound(folder, names, seconds)
        return _choose(places, counts, seed), bad

    def cut(name: str, staging: Path) -> Iterator[Path]:
        chosen, bad = choice()
        if name in bad:
            raise bad[name]
        path, left = folder / name, dict(chosen.get(name, {}))
        for place, wave, rate in _pieces(path, seconds) if left else ():
            if (split := left.pop(place, None)) is not None:
                # Named by time: with another length, the same number would name other sound.
                start = place * _samples(seconds, rate) / rate
                file = f"{start:.3f}-{start + len(wave) / rate:.3f}.wav"
                yield write_wav(staging / name / split / file, wave, rate)
            if not left:
                break

    target = work / f"background-{key.hexdigest()[:12]}"
    return target, make_cuts(target, folder, names, cut, f"Cutting {BACKGROUND}")


def _places_with_sound(
    folder: Path, names: Sequence[str], seconds: float
) -> tuple[dict[str, list[int]], dict[str, AudioError]]:
    """Returns the numbers of the pieces of each recording that are not silent.

    Returns:
        The numbers, by recording; and the recordings that cannot be read, each with its error.
    """
    places, bad = {}, {}
    with progress_bar(f"Reading {BACKGROUND}", len(names)) as advance:
        for name in names:
            try:
                found = _pieces(folder / name, seconds)
                places[name] = [place for place, wave, _ in found if not is_silent(wave)]
            except AudioError as error:
                bad[name] = error
            advance(1)
    return places, bad


def _pieces(path: Path, seconds: float) -> Iterator[tuple[int, Waveform, int]]:
    """Yields the pieces of a recording: number, waveform and sample rate.

    A remainder at the end is not a piece, unless it is the whole recording.
    """
    rate = probe(path).sample_rate
    length = _samples(seconds, rate)
    for start, wave in cut_windows(stream_audio(path, rate, silent_ok=True), length):
        if start % length == 0:
            yield start // length, wave, rate


def _samples(seconds: float, rate: int) -> int:
    """Returns the length of a piece, in samples."""
    return max(2, round(seconds * rate))


def _choose(
    places: Mapping[str, Sequence[int]], counts: Mapping[str, int], seed: int
) -> dict[str, dict[int, str]]:
    """Chooses pieces of recordings; returns the split of each, by recording and number."""
    pieces = [(name, place) for name in seeded_order(list(places), seed) for place in places[name]]
    total, end = sum(counts.values()), 0
    found: dict[str, dict[int, str]] = {}
    smallest_first = sorted(counts.items(), key=lambda item: item[1])
    for number, (split, count) in enumerate(smallest_first, start=1):
        start, end = end, end + max(1, int(len(pieces) * count / total))
        end = len(pieces) if number == len(counts) else end
        section = {f"{name}/{place}": (name, place) for name, place in pieces[start:end]}
        for chosen in seeded_order(section, seed)[:count]:
            name, place = section[chosen]
            found.setdefault(name, {})[place] = split
    return found
