"""The class of all other sounds: clips cut from arbitrary recordings."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import soundfile

from spaudio.audio.chunks import cut_windows
from spaudio.audio.decode import is_silent, probe, stream_audio
from spaudio.audio.find import audio_files
from spaudio.audio.manifest import SourceClip
from spaudio.audio.source import make_folder
from spaudio.audio.split import seeded_order
from spaudio.errors import DataError
from spaudio.io.progress import progress_bar
from spaudio.io.state import FileState

BACKGROUND = "_background_"
_VERSION = 2  # of the cuts; raise it with any change to them


def cut_background(
    folder: Path, work: Path, *, seconds: float, counts: Mapping[str, int], seed: int
) -> tuple[Path, list[SourceClip]]:
    """Cuts clips out of recordings of any length, with a separate stretch for each split.

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
        Folder of the clips; and the clips, with paths relative to it. A clip's group is its
        recording within its split.

    Raises:
        AudioError: If a recording cannot be used.
        DataError: If there is no recording, or not enough sound for a clip in each split.
    """
    names = sorted(audio_files(folder, without=work.parent))
    if not names:
        raise DataError(f"{folder}: no audio files found to cut {BACKGROUND} from")
    key = hashlib.sha256(f"v{_VERSION} {seconds} {sorted(counts.items())} {seed}".encode())
    for name in names:
        key.update(os.fsencode(f"{name} {FileState.of((folder / name).stat())}"))
    chosen = _choose(folder, names, seconds, counts, seed)

    def write(staging: Path) -> None:
        with progress_bar(f"Cutting {BACKGROUND}", len(chosen)) as advance:
            for number, (name, wanted) in enumerate(sorted(chosen.items())):
                path, rate = folder / name, probe(folder / name).sample_rate
                length = max(2, round(seconds * rate))
                pieces = stream_audio(path, rate, silent_ok=True)
                for start, wave in cut_windows(pieces, length):
                    split = wanted.get(start // length) if start % length == 0 else None
                    if split is not None and not is_silent(wave):
                        clip = staging / split / f"{number:05d}_{start // length:06d}.wav"
                        clip.parent.mkdir(exist_ok=True)
                        soundfile.write(clip, wave, rate, "FLOAT")  # as it was decoded
                advance(1)

    target = make_folder(work / f"background-{key.hexdigest()[:12]}", write)
    clips = []
    for split in counts:
        found = sorted((target / split).glob("*.wav"))
        if not found:
            raise DataError(
                f"{folder}: not enough sound for a {BACKGROUND} clip of {seconds:.2g} s in each "
                "split, or only silence; add recordings"
            )
        clips += [
            SourceClip(f"{split}/{path.name}", BACKGROUND, split, f"{split}-{path.name[:5]}")
            for path in found
        ]
    return target, clips


def _choose(
    folder: Path, names: list[str], seconds: float, counts: Mapping[str, int], seed: int
) -> dict[str, dict[int, str]]:
    """Chooses clips; returns the split of each, by recording and position in it."""
    pieces = [
        (name, place)
        for name in seeded_order(names, seed)
        for place in range(max(1, int(probe(folder / name).seconds / seconds)))
    ]
    total, end = sum(counts.values()), 0
    found: dict[str, dict[int, str]] = {}
    smallest_first = sorted(counts.items(), key=lambda item: item[1])
    for number, (split, count) in enumerate(smallest_first, start=1):
        start, end = end, end + max(1, int(len(pieces) * count / total))
        end = len(pieces) if number == len(counts) else end
        stretch = {f"{name}/{place}": (name, place) for name, place in pieces[start:end]}
        for chosen in seeded_order(stretch, seed)[:count]:
            name, place = stretch[chosen]
            found.setdefault(name, {})[place] = split
    return found
