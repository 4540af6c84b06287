"""Speech Commands v0.02: 105,829 one-second clips of 35 words, 16 kHz (CC BY 4.0).

Source: P. Warden, "Speech Commands", arXiv 1804.03209.

    python data_prep/speech_commands.py [source=ARCHIVE_OR_FOLDER] [task=v2-35]
    python data_prep/speech_commands.py task=v2-12 test=archive
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.decode import load_audio
from spaudio.audio.manifest import SPLITS
from spaudio.audio.source import Archive, link_parts, open_parts
from spaudio.audio.split import check_split_seed, seeded_order
from spaudio.audio.wav import write_wav
from spaudio.errors import ConfigError, DataError
from spaudio.io.atomic import make_folder
from spaudio.io.progress import progress_bar

HOST = "http://download.tensorflow.org/data"
WORDS_URL = f"{HOST}/speech_commands_v0.02.tar.gz"
TEST_URL = f"{HOST}/speech_commands_test_set_v0.02.tar.gz"
# SHA-256 checksums from torchaudio (the words) and TensorFlow Datasets (both).
WORDS_SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
TEST_SHA256 = "cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df"
WORDS = Archive("words", {WORDS_URL: WORDS_SHA256}, marker="testing_list.txt")
TEST_SET = Archive("test_set", {TEST_URL: TEST_SHA256}, marker="_silence_")
TEST_CLIPS = 4_890  # of the published test set
COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
NEW_WORD = "backward"  # of v0.02; v0.01 has no such clips
SILENCE, UNKNOWN, NOISE = "_silence_", "_unknown_", "_background_noise_"
SAMPLE_RATE = 16_000  # Hz
SECONDS = 1.0
#: Section of each recording that a split uses, as fractions of it: no second is in two splits.
SECTIONS = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}
QUIETEST = -40.0  # dB relative to the recording; the loudest cut is at 0 dB
_VERSION = 1  # of the cuts; increase it with any change that alters them
SHARE = 0.1  # clips of silence, and of unknown words, per clip of a command (arXiv 1804.03209)


def prepare(
    work: Path,
    *,
    source: str | None = None,
    task: str = "v2-35",
    test: str = "lists",
    split_seed: int = 0,
) -> SourceClips:
    """Lists the clips, split by the official lists; the group is the speaker.

    Clips that are in an official list but not in ``source`` are included, so that they are reported
    as missing.

    Args:
        work: Folder to download, unpack and cut noise into.
        source: Upstream's archive, or a folder with it (and the test archive); None downloads.
        task: ``"v2-35"``, all words; or ``"v2-12"``, ten commands, silence and unknown words.
        test: ``"lists"`` tests on ``testing_list.txt``; ``"archive"``, for v2-12 only, on the
            separate official archive of 4,890 clips.
        split_seed: Seed of the choice of unknown words and of noise for v2-12, from 0.

    Raises:
        ConfigError: If ``task`` or ``test`` is unknown, they contradict each other, or
            ``split_seed`` is negative.
        DataError: If parts are missing, the source is another version, or a download has the
            wrong checksum.
    """
    if task not in ("v2-35", "v2-12"):
        raise ConfigError(f"task={task!r}; expected 'v2-35' or 'v2-12'")
    if test not in ("lists", "archive") or (test == "archive" and task != "v2-12"):
        raise ConfigError(f"test={test!r}; expected 'lists', or 'archive' with task=v2-12")
    check_split_seed(split_seed)
    folders = open_parts([WORDS, TEST_SET] if test == "archive" else [WORDS], work, source)
    words = folders["words"]
    named = {
        name: split
        for split, file in (("valid", "validation_list.txt"), ("test", "testing_list.txt"))
        for name in (words / file).read_text(encoding="utf-8").split()
    }
    if not any(name.startswith(f"{NEW_WORD}/") for name in named):
        raise DataError(
            f"{words}: the lists have no clip of {NEW_WORD!r}, so this is not v0.02, maybe v0.01; "
            f"give {WORDS_URL.rpartition('/')[2]}, or sort your words as in recipes/folder"
        )
    found = {path.relative_to(words).as_posix() for path in words.glob("*/*.wav")}
    names = sorted(name for name in found | named.keys() if not name.startswith(NOISE))
    clips = [_clip(f"words/{name}", named.get(name, "train")) for name in names]
    if task == "v2-12":
        clips, silences = _twelve(clips, split_seed)
        folders["silence"], cuts = cut_noise(words / NOISE, silences, work, split_seed)
        clips += [
            SourceClip(f"silence/{name}", SILENCE, split, f"{split}-{noise}")
            for name, split, noise in cuts
        ]
    warnings: list[str] = []
    if test == "archive":
        paths = sorted(folders["test_set"].glob("*/*.wav"))
        official = [_clip(f"test_set/{p.parent.name}/{p.name}", "test") for p in paths]
        if len(official) != TEST_CLIPS:
            warnings.append(
                f"the published test set has {TEST_CLIPS:,} clips, this one {len(official):,}; "
                "unpack it again, or do not compare the result with published ones"
            )
        clips = [clip for clip in clips if clip.split != "test"] + official
    labels = (*COMMANDS, SILENCE, UNKNOWN) if task == "v2-12" else None
    return SourceClips(
        link_parts(folders, work),
        clips,
        labels,
        silent_ok=task == "v2-12",
        warnings=warnings,
        unused=() if task == "v2-12" else ("split_seed",),
    )


def _clip(path: str, split: str) -> SourceClip:
    _, word, name = path.split("/")
    return SourceClip(path, word, split, group=name.split("_nohash_")[0])


def _twelve(clips: list[SourceClip], seed: int) -> tuple[list[SourceClip], dict[str, int]]:
    """Keeps the commands and a share of the other words; counts the silences of each split."""
    kept = [clip for clip in clips if clip.label in COMMANDS]
    silences: dict[str, int] = {}
    for split in SPLITS:
        silences[split] = math.ceil(SHARE * sum(clip.split == split for clip in kept))
        others = {c.path: c for c in clips if c.split == split and c.label not in COMMANDS}
        for path in seeded_order(others, seed)[: silences[split]]:
            kept.append(SourceClip(path, UNKNOWN, split, others[path].group))
    return kept, silences


def cut_noise(
    folder: Path, counts: Mapping[str, int], work: Path, seed: int
) -> tuple[Path, list[tuple[str, str, str]]]:
    """Cuts one-second clips from a folder's recordings, at random positions and levels.

    Args:
        folder: Holds WAV files of at least ten seconds.
        counts: Number of cuts per split.
        work: The cuts are written to a folder in it.
        seed: Seed of positions and levels.

    Returns:
        The folder of the cuts, and the name, split and recording of each cut.

    Raises:
        DataError: If there is no recording, or one is too short.
    """
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise DataError(f"{folder}: no recordings of noise (*.wav) to cut silence from")
    cuts = [
        (f"{split}/{number:05d}_{paths[number % len(paths)].stem}.wav", split, number)
        for split in SECTIONS
        for number in range(counts.get(split, 0))
    ]
    key = hashlib.sha256(f"v{_VERSION} {seed} {[name for name, *_ in cuts]}".encode())
    for path in paths:
        key.update(path.read_bytes())

    def write(staging: Path) -> None:
        waves = [load_audio(path, SAMPLE_RATE) for path in paths]
        with progress_bar("Cutting noise", len(cuts)) as advance:
            for name, split, number in cuts:
                place = number % len(paths)
                random = np.random.default_rng([seed, list(SECTIONS).index(split), number])
                path = staging / name
                cut = _cut(waves[place], *SECTIONS[split], paths[place], random)
                write_wav(path, cut, SAMPLE_RATE, "PCM_16")
                advance(1)

    names = [name for name, *_ in cuts]
    target = make_folder(work / f"noise-{key.hexdigest()[:12]}", write, names)
    return target, [(name, split, paths[n % len(paths)].stem) for name, split, n in cuts]


def _cut(
    wave: NDArray[np.float32], begin: float, end: float, path: Path, random: np.random.Generator
) -> NDArray[np.float32]:
    """Cuts a second from a section of a recording, given as fractions, at a random level."""
    length = round(SECONDS * SAMPLE_RATE)
    first, last = round(begin * len(wave)), round(end * len(wave))
    if last - first < length:
        raise DataError(
            f"{path}: {len(wave) / SAMPLE_RATE:g} s long; {SECONDS / (end - begin):g} s are needed"
        )
    start = int(random.integers(first, last - length + 1))
    gain = 10 ** (random.uniform(QUIETEST, 0) / 20)
    return gain * wave[start : start + length]


if __name__ == "__main__":
    main("speech_commands", prepare)
