from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_prep import audiomnist
from spaudio.audio import prepare
from spaudio.audio.split import split_by_fold
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_folds import make_audiomnist

# Upstream's split no. 2 of the task "digit", as audiomnist/train/splits.py writes it out.
TRAIN = {43, 58, 14, 25, 38, 3, 10, 20, 30, 40, 49, 55, 12, 47, 59, 15, 27, 41, 4, 11, 21, 31, 44,
         50, 26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51}  # fmt: skip
VALIDATE = {28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53}
TEST = {36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54}


def test_the_folds_share_sixty_speakers_out() -> None:
    assert sorted(speaker for fold in audiomnist.FOLDS for speaker in fold) == list(range(1, 61))


def test_a_fold_is_the_authors_split(tmp_path: Path) -> None:
    folder = make_audiomnist(tmp_path / "AudioMNIST-master", speakers=range(1, 61), digits=[7])
    prepared = prepare(
        "audiomnist", lambda work: audiomnist.prepare(work, source=str(folder.parent)),
        folder=tmp_path / "data", options={}, skip_bad=True, progress=False,
    )  # fmt: skip
    assert len(prepared.clips) == 120
    assert len(prepared.skipped) == 30_000 - 120
    speakers: dict[str, set[int]] = {"train": set(), "valid": set(), "test": set()}
    for clip in split_by_fold(prepared.clips, 3):
        speakers[clip.split].add(int(clip.group))
    assert speakers == {"train": TRAIN, "valid": VALIDATE, "test": TEST}


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    folder = make_audiomnist(tmp_path / "data-set", speakers=[26, 1])
    with pytest.raises(DataError, match=r"29988 of 30000 .*bad_clips.*\n  data/01/0_01_10\.wav"):
        prepare(
            "audiomnist", lambda work: audiomnist.prepare(work, source=str(folder)),
            folder=tmp_path / "data", options={}, progress=False,
        )  # fmt: skip
    listed = (next((tmp_path / "data").rglob("bad_clips.txt"))).read_text().splitlines()
    assert Counter("no such file" in line for line in listed) == {True: 29_988}
    with pytest.raises(ConfigError, match="source= is required"):
        audiomnist.prepare(tmp_path)
