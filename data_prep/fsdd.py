"""Free Spoken Digits (FSDD): 3,000 clips of 10 digits by 6 speakers, 8 kHz.

Source: https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0).

    python data_prep/fsdd.py [source=ARCHIVE_OR_FOLDER] [split=official]
    python data_prep/fsdd.py split=speaker test_speaker=george
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.errors import ConfigError, DataError, counted, some
from spaudio.io.download import download
from spaudio.io.unpack import open_source

VERSION = "v1.0.10"
URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/{VERSION}.zip"
#: GitHub makes the archive on demand and does not guarantee its bytes, so the checksum is that of
#: the 3,000 recordings in it: SHA-256 over the name and bytes of each, sorted by name.
RECORDINGS_SHA256 = "45a9b976ba3397a2fd5c70a9f2e43c34f442a3a6be47392ecfc41174b678f37e"

LABELS = tuple(str(digit) for digit in range(10))
#: According to the dataset's README, recordings 0 to 4 of each speaker and digit are the test set.
TEST_INDICES = range(5)

_NAME = re.compile(
    r"(?P<digit>[0-9])_(?P<speaker>[A-Za-z]\w*?)_(?P<index>[0-9]+)\.(wav|flac)", re.I
)


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
        ConfigError: If ``split`` or ``test_speaker`` is unknown, or they contradict each other.
        DataError: If the data are missing or have an unexpected layout, or a download has the wrong
            checksum.
    """
    if split not in ("official", "speaker"):
        raise ConfigError(f"split={split!r}; expected 'official' or 'speaker'")
    if split == "official" and test_speaker is not None:
        raise ConfigError(f"test_speaker={test_speaker!r} needs split=speaker")
    archive = source or download(URL, work / f"fsdd-{VERSION}.zip", None)
    root, names = _recordings(open_source(archive, work))
    if source is None:
        _check_digest(root, names, work)
    recordings = {name: _NAME.fullmatch(name) for name in names}
    speakers = sorted({match["speaker"] for match in recordings.values() if match})
    if split == "speaker" and test_speaker not in speakers:
        raise ConfigError(
            f"test_speaker={test_speaker!r} has no recordings; choose one of {', '.join(speakers)}"
        )
    clips = []
    for name, match in recordings.items():
        if match is None:
            raise DataError(
                f"{root / name}: not named {{digit}}_{{speaker}}_{{index}}.wav; rename or remove it"
            )
        digit, speaker, index = match["digit"], match["speaker"], int(match["index"])
        tested = index in TEST_INDICES if split == "official" else speaker == test_speaker
        clips.append(SourceClip(name, digit, "test" if tested else "train", group=speaker))
    warnings = _incomplete(clips)
    return SourceClips(root=root, clips=clips, labels=LABELS, warnings=warnings)


def _incomplete(clips: Sequence[SourceClip]) -> list[str]:
    """Returns sentences on digits without recordings, and on speakers with fewer than others."""
    counts = Counter((clip.group, clip.label) for clip in clips)
    most = max(counts.values())
    found = {digit for _, digit in counts}
    said = []
    if lacking := [digit for digit in LABELS if digit not in found]:
        said.append(f"there are no recordings of {', '.join(lacking)}")
    few = [
        f"{speaker} has {counts[speaker, digit]} of {digit}"
        for speaker, digit in product(sorted({speaker for speaker, _ in counts}), sorted(found))
        if counts[speaker, digit] < most
    ]
    if few:
        each = counted(most, "recording")
        said.append(f"not all speakers have {each} of each digit: {some(few)}")
    return said


def _recordings(folder: Path) -> tuple[Path, list[str]]:
    """Returns the folder that holds recordings, at most two levels down, and their names."""
    for root in (folder / "recordings", *sorted(folder.glob("*/recordings")), folder):
        names = sorted(p.name for p in root.glob("*") if p.suffix.lower() in (".wav", ".flac"))
        if names:
            return root, names
    raise DataError(
        f"{folder}: no recordings; expected recordings/{{digit}}_{{speaker}}_{{index}}.wav"
    )


def _check_digest(root: Path, names: Sequence[str], work: Path) -> None:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + (root / name).read_bytes())
    if digest.hexdigest() != RECORDINGS_SHA256:
        raise DataError(
            f"{URL}: the {len(names)} recordings in {root} have SHA-256 {digest.hexdigest()}, "
            f"expected {RECORDINGS_SHA256}; delete {work} to fetch them again, or "
            "give recordings that you trust as source="
        )


if __name__ == "__main__":
    main("fsdd", prepare)
