"""The data sets with official folds: ESC-50, UrbanSound8K, AudioMNIST and RAVDESS."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_prep import audiomnist, esc50, ravdess, urbansound8k
from spaudio.audio.split import split_by_fold
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_folds import ESC10, URBAN, make_audiomnist, make_esc50, make_urbansound8k

REAL = Path(__file__).resolve().parents[3] / "shared/data/ESC-50-master"

# Upstream's split no. 2 of the task "digit", as audiomnist/train/splits.py writes it out.
TRAIN = {43, 58, 14, 25, 38, 3, 10, 20, 30, 40, 49, 55, 12, 47, 59, 15, 27, 41, 4, 11, 21, 31, 44,
         50, 26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51}  # fmt: skip
VALIDATE = {28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53}
TEST = {36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54}


def test_esc10_as_folder_archive_and_with_damage(tmp_path: Path) -> None:
    folder = make_esc50(tmp_path / "esc" / "ESC-50-master")
    # From one level above, as an archive unpacks.
    prepared = run_script(esc50.prepare, tmp_path, source=folder.parent, subset="esc10")
    assert prepared.labels == tuple(ESC10[target] for target in sorted(ESC10))
    assert Counter(clip.fold for clip in prepared.clips) == dict.fromkeys(range(1, 6), 20)
    for clip in prepared.clips:
        fold, group, _, target = clip.path.removeprefix("audio/").removesuffix(".wav").split("-")
        assert (clip.fold, clip.group, clip.label) == (int(fold), group, ESC10[int(target)])
    archive = Path(shutil.make_archive(str(tmp_path / "master"), "zip", folder.parent))
    packed = run_script(esc50.prepare, tmp_path, source=archive, subset="esc10")
    assert packed.hash == prepared.hash
    (folder / "audio/1-1-A-0.wav").unlink()
    with pytest.raises(DataError, match=r"1-1-A-0\.wav: no such file"):
        run_script(esc50.prepare, tmp_path, source=folder, subset="esc10")
    with pytest.raises(DataError, match=r"lists 11 of the 50 classes of esc50; try subset=esc10"):
        esc50.prepare(tmp_path, source=str(folder))
    with pytest.raises(ConfigError, match="subset='esc20'"):
        esc50.prepare(tmp_path, source=str(folder), subset="esc20")
    with pytest.raises(ConfigError, match=r"source= is required.*fetch https"):
        esc50.prepare(tmp_path)
    with pytest.raises(DataError, match=r"holds no meta/esc50\.csv"):
        esc50.prepare(tmp_path, source=str(folder / "audio"))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data are not beside the repository")
def test_the_real_esc10(tmp_path: Path) -> None:
    source = esc50.prepare(tmp_path, source=str(REAL), subset="esc10")
    clips = list(source.clips)
    assert Counter(clip.fold for clip in clips) == dict.fromkeys(range(1, 6), 80)
    assert set(Counter((clip.fold, clip.label) for clip in clips).values()) == {8}
    assert all((source.root / clip.path).is_file() for clip in clips)
    folds = {(clip.group, clip.fold) for clip in clips}
    assert len(folds) == len({group for group, _ in folds})  # no recording is in two folds


def test_urbansound8k_has_its_folds_and_no_random_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_urbansound8k(tmp_path / "UrbanSound8K", clips=1)
    prepared = run_script(urbansound8k.prepare, tmp_path / "data", source=folder)
    assert prepared.labels == URBAN
    assert Counter(clip.fold for clip in prepared.clips) == dict.fromkeys(range(1, 11), 10)
    for clip in prepared.clips:
        assert clip.path.startswith(f"audio/fold{clip.fold}/{clip.group}-")
    with pytest.raises(ConfigError, match=r"slices come from one recording.*folds=all"):
        urbansound8k.prepare(tmp_path, source="x", split="random")
    asked: list[object] = []

    def download(url: str, target: Path, checksum: str) -> Path:
        asked.append((url, checksum))
        return folder

    monkeypatch.setattr(urbansound8k, "download", download)
    urbansound8k.prepare(tmp_path / "work")
    assert asked == [(urbansound8k.URL, urbansound8k.MD5)]


def test_a_fold_of_audiomnist_is_the_authors_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_every_sentence_of_every_actor_of_ravdess_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "Actor_01").mkdir()
    clips = list(ravdess.prepare(tmp_path / "work", source=str(tmp_path)).clips)
    assert len({clip.path for clip in clips}) == 1440
    assert [clip.label for clip in clips].count("neutral") == 96  # 24 actors, 2 sentences, twice
    assert "Actor_12/03-01-06-01-02-01-12.wav" in {c.path for c in clips if c.label == "fearful"}
    assert len({(clip.group, clip.fold) for clip in clips}) == 24
