"""Free Spoken Digits (FSDD): 3,000 clips of 10 digits by 6 speakers, 8 kHz.

Source: https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0).

    python data_prep/fsdd.py [source=ARCHIVE_OR_FOLDER] [split=official]
    python data_prep/fsdd.py split=speaker test_speaker=george
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from spaudio.audio.command import main
from spaudio.audio.download import download
from spaudio.audio.prepare import SourceClip, SourceClips
from spaudio.audio.unpack import open_source
from spaudio.errors import ConfigError, DataError

VERSION = "v1.0.10"
URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/{VERSION}.zip"
#: Upstream publishes no checksum and GitHub makes the archive on demand, so none is known. A
#: download is checked by its content instead: every digit x speaker x index must be there.
SHA256: str | None = None

LABELS = tuple(str(digit) for digit in range(10))
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
INDICES = range(50)
#: The README of the data set: recordings 0 to 4 of each speaker and digit are the test set.
TEST_INDICES = range(5)

_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[A-Za-z]\w*?)_(?P<index>[0-9]+)\.wav", re.I)


def prepare(
    work: Path,
    *,
    source: str | None = None,
    split: str = "official",
    test_speaker: str | None = None,
) -> SourceClips:
    """Lists the recordings; the group is the speaker.

    Args:
        work: Folder to download and unpack into.
        source: Upstream's archive, or a folder with or without ``recordings/``; None downloads.
        split: ``"official"`` tests on recordings 0 to 4 of each speaker and digit; ``"speaker"``
            leaves one speaker out.
        test_speaker: The speaker left out by ``split="speaker"``.

    Raises:
        ConfigError: If ``split`` or ``test_speaker`` is unknown or they do not fit.
        DataError: If the data are missing, incomplete or laid out otherwise.
    """
    if split not in ("official", "speaker"):
        raise ConfigError(f"split={split!r}; expected 'official' or 'speaker'")
    if split == "official" and test_speaker is not None:
        raise ConfigError(f"test_speaker={test_speaker!r} needs split=speaker")
    if source is None:
        archive = download(URL, work / f"fsdd-{VERSION}.zip", SHA256)
        root, names = _recordings(open_source(archive, work))
        _check_complete(names)
    else:
        root, names = _recordings(open_source(source, work))
    recordings = [(name, _parse(root, name)) for name in names]
    speakers = sorted({speaker for _, (_, speaker, _) in recordings})
    if split == "speaker" and test_speaker not in speakers:
        raise ConfigError(
            f"test_speaker={test_speaker!r} has no recordings; choose one of {', '.join(speakers)}"
        )
    clips = [
        SourceClip(
            path=name,
            label=digit,
            split="test"
            if (index in TEST_INDICES if split == "official" else speaker == test_speaker)
            else "train",
            group=speaker,
        )
        for name, (digit, speaker, index) in recordings
    ]
    return SourceClips(root=root, clips=clips, labels=LABELS)


def _recordings(folder: Path) -> tuple[Path, list[str]]:
    """The folder that holds recordings, at most two levels down, and their names."""
    for root in (folder / "recordings", *sorted(folder.glob("*/recordings")), folder):
        names = sorted(p.name for p in root.glob("*") if p.suffix.lower() == ".wav")
        if names:
            return root, names
    raise DataError(
        f"{folder}: no recordings; expected recordings/{{digit}}_{{speaker}}_{{index}}.wav"
    )


def _parse(root: Path, name: str) -> tuple[str, str, int]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"{root / name}: not named {{digit}}_{{speaker}}_{{index}}.wav; rename or remove it"
        )
    return match["digit"], match["speaker"], int(match["index"])


def _check_complete(names: Sequence[str]) -> None:
    expected = {f"{d}_{s}_{i}.wav" for d in LABELS for s in SPEAKERS for i in INDICES}
    differing = sorted(expected.symmetric_difference(names))
    if differing:
        raise DataError(
            f"{URL}: {len(differing)} of {len(expected)} recordings are missing or unexpected, "
            f"{differing[0]} first; fetch the archive another way and give source="
        )


if __name__ == "__main__":
    main("fsdd", prepare)
