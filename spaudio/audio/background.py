"""The class of all other sounds: clips cut from arbitrary recordings."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from spaudio.audio.chunks import cut_windows
from spaudio.audio.cuts import make_cuts, state_of
from spaudio.audio.decode import is_silent, probe, stream_audio
from spaudio.audio.find import audio_files
from spaudio.audio.manifest import SourceClip
from spaudio.audio.split import seeded_order
from spaudio.audio.wav import write_wav
from spaudio.errors import AudioError, DataError, reason, some

BACKGROUND = "_background_"
_VERSION = 6  # of the cuts; raise it with any change to them


def cut_background(
    folder: Path, work: Path, *, seconds: float, counts: Mapping[str, int], seed: int
) -> tuple[Path, list[SourceClip], dict[str, str]]:
    """Cuts clips out of recordings of any length, with a separate section for each split.

    All recordings are laid end to end in a random order and divided among the splits, so that no
    second is in two of them, for one long recording as for many short ones. Recordings that are
    shorter than a clip are taken whole. Silence is left out.

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
    lengths, bad = _lengths(folder, names)
    while True:  # as if the recordings that turn out to be bad were not there
        target, more = _cut(folder, work, lengths, seconds, counts, seed)
        if not more:
            break
        bad |= more
        lengths = {name: length for name, length in lengths.items() if name not in more}
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


def _lengths(folder: Path, names: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Returns the seconds of recordings, and those that cannot be read, each with the reason."""
    lengths, bad = {}, {}
    for name in names:
        try:
            lengths[name] = probe(folder / name).seconds
        except AudioError as error:
            bad[name] = reason(error, folder / name)
    return lengths, bad


def _cut(
    folder: Path,
    work: Path,
    lengths: Mapping[str, float],
    seconds: float,
    counts: Mapping[str, int],
    seed: int,
) -> tuple[Path, dict[str, str]]:
    """Cuts clips out of recordings of the given lengths, as `make_cuts` does."""
    key = hashlib.sha256(f"v{_VERSION} {seconds} {sorted(counts.items())} {seed}".encode())
    for name in lengths:
        key.update(os.fsencode(f"{name} {state_of(folder / name)}"))
    chosen = _choose(lengths, seconds, counts, seed)

    def cut(name: str, staging: Path) -> Iterator[Path]:
        path, rate = folder / name, probe(folder / name).sample_rate
        length = max(2, round(seconds * rate))
        for start, wave in cut_windows(stream_audio(path, rate, silent_ok=True), length):
            split = chosen[name].get(start // length) if start % length == 0 else None
            if split is not None and not is_silent(wave):
                clip = staging / name / split / f"{start // length:06d}.wav"
                yield write_wav(clip, wave, rate)

    target = work / f"background-{key.hexdigest()[:12]}"
    return target, make_cuts(target, folder, sorted(chosen), cut, f"Cutting {BACKGROUND}")


def _choose(
    lengths: Mapping[str, float], seconds: float, counts: Mapping[str, int], seed: int
) -> dict[str, dict[int, str]]:
    """Chooses clips of recordings; returns the split of each, by recording and position in it."""
    pieces = [
        (name, place)
        for name in seeded_order(list(lengths), seed)
        for place in range(max(1, int(lengths[name] / seconds)))
    ]
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
