from __future__ import annotations

from pathlib import Path

import pytest

from data_prep import audiomnist
from spaudio.audio.split import split_by_fold
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_folds import make_audiomnist

# Upstream's split no. 2 of the task "digit", as audiomnist/train/splits.py writes it out.
TRAIN = {43, 58, 14, 25, 38, 3, 10, 20, 30, 40, 49, 55, 12, 47, 59, 15, 27, 41, 4, 11, 21, 31, 44,
         50, 26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51}  # fmt: skip
VALIDATE = {28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53}
TEST = {36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54}


def test_a_fold_is_the_authors_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_audiomnist(tmp_path / "AudioMNIST-master", speakers=range(1, 61), digits=[7])
    assert len(list(audiomnist.prepare(tmp_path, source=str(folder)).clips)) == 30_000
    monkeypatch.setattr(audiomnist, "DIGITS", ("6", "7"))
    monkeypatch.setattr(audiomnist, "REPETITIONS", 2)
    with pytest.raises(DataError, match=r"120 of 240 .*bad_clips.*\n  data/01/6_01_0\.wav"):
        run_script(audiomnist.prepare, tmp_path, source=folder.parent)
    prepared = run_script(audiomnist.prepare, tmp_path, source=folder.parent, skip_bad=True)
    speakers: dict[str, set[int]] = {"train": set(), "valid": set(), "test": set()}
    for clip in split_by_fold(prepared.clips, 3):
        speakers[clip.split].add(int(clip.group))
    assert speakers == {"train": TRAIN, "valid": VALIDATE, "test": TEST}
    with pytest.raises(ConfigError, match="source= is required"):
        audiomnist.prepare(tmp_path)
