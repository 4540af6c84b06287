"""AudioMNIST: 30,000 spoken digits of 60 speakers, 48 kHz, and its authors' 5 speaker folds.

Source: https://github.com/soerenab/AudioMNIST (MIT); arXiv 1807.03418.

    python data_prep/audiomnist.py source=ARCHIVE_OR_FOLDER
"""

from pathlib import Path

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.source import find_root

WHERE = (
    "fetch https://github.com/soerenab/AudioMNIST/archive/refs/heads/master.zip (GitHub makes it "
    "on demand and publishes no checksum, so it is not downloaded automatically)"
)
#: Test speakers of each fold for the task "digit", in the order of upstream's
#: audiomnist/train/splits.py. As there, the preceding fold (for the first, the last) is validation.
FOLDS = (
    (26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51),
    (28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53),
    (36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54),
    (43, 58, 14, 25, 38, 3, 10, 20, 30, 40, 49, 55),
    (12, 47, 59, 15, 27, 41, 4, 11, 21, 31, 44, 50),
)
DIGITS = tuple(str(digit) for digit in range(10))
REPETITIONS = 50


def prepare(work: Path, *, source: str | None = None) -> SourceClips:
    """Lists every recording that upstream has; the group is the speaker.

    Args:
        work: Folder to unpack into.
        source: Upstream's archive or the folder it unpacks to.

    Raises:
        ConfigError: If ``source`` is missing.
        DataError: If the source has an unexpected layout.
    """
    root = find_root(source, work, "data/audioMNIST_meta.txt", WHERE)
    clips = [
        SourceClip(f"data/{who}/{digit}_{who}_{index}.wav", digit, "train", who, fold)
        for fold, speakers in enumerate(FOLDS, start=1)
        for who in (f"{speaker:02}" for speaker in speakers)
        for digit in DIGITS
        for index in range(REPETITIONS)
    ]
    return SourceClips(root, clips, labels=DIGITS)


if __name__ == "__main__":
    main("audiomnist", prepare)
