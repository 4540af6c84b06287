"""The class of all other sounds: clips cut from arbitrary recordings."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from spaudio.audio.chunks import cut_windows
from spaudio.audio.cuts import make_cuts, state_of
from spaudio.audio.decode import Waveform, is_silent, probe, stream_audio
from spaudio.audio.find import audio_files
from spaudio.audio.manifest import SourceClip
from spaudio.audio.split import seeded_order
from spaudio.audio.wav import write_wav
from spaudio.errors import AudioError, DataError, some
from spaudio.io.progress import progress_bar

BACKGROUND = "_background_"
_VERSION = 7  # of the cuts; raise it with any change to them


def cut_background(
    folder: Path, work: Path, *, seconds: float, counts: Mapping[str, int], seed: int
) -> tuple[Path, list[SourceClip], dict[str, str]]:
    """Cuts clips out of recordings of any length, with a separate section for each split.

    All recordings are laid end to end in a random order and divided among the splits, so that no
    second is in two of them, for one long recording as for many short ones. Recordings that are
    shorter than a clip are taken whole. Silence is left out before they are divided.

    Args:
        folder: Holds the recordings, at any depth.
        work: The clips are written to a folder in it.
        seconds: Length of a clip.
        counts: Number of clips wanted per split; fewer are cut if there is less sound.
        seed: Determines which clips are cut.

    Returns:
        Folder of the clips; the clips, with paths relative to it; and the recordings that cannot be
        used, each with the reason. A clip is ``<recording>/<split>/<number>.wav``; its group is the
        part of its recording in its split.

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
        names = [path.relative_to(target).as_posix() for path in found]
        clips += [SourceClip(name, BACKGROUND, split, name.rpartition("/")[0]) for name in names]
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
                yield write_wav(staging / name / split / f"{place:06d}.wav", wave, rate)
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

    What is left at the end is no piece, unless the recording is shorter than one.
    """
    rate = probe(path).sample_rate
    length = max(2, round(seconds * rate))
    for start, wave in cut_windows(stream_audio(path, rate, silent_ok=True), length):
        if start % length == 0:
            yield start // length, wave, rate


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
