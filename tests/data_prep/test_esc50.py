from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from data_prep import esc50
from spaudio.audio import Prepared
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_folds import ESC10, make_esc50

REAL = Path(__file__).resolve().parents[3] / "shared/data/ESC-50-master"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_esc50(tmp_path_factory.mktemp("esc") / "ESC-50-master")


def run(source: Path, data: Path, **options: Any) -> Prepared:
    return run_script(esc50.prepare, data, source=source, **({"subset": "esc10"} | options))


def test_official_folds_and_the_subset(folder: Path, tmp_path: Path) -> None:
    prepared = run(folder.parent, tmp_path)  # one level above, as an archive unpacks
    assert prepared.labels == tuple(ESC10[target] for target in sorted(ESC10))
    assert Counter(clip.fold for clip in prepared.clips) == dict.fromkeys(range(1, 6), 20)
    for clip in prepared.clips:
        fold, group, _, target = clip.path.removeprefix("audio/").removesuffix(".wav").split("-")
        assert (clip.fold, clip.group, clip.label) == (int(fold), group, ESC10[int(target)])


def test_an_archive_is_the_same_data(folder: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "master"), "zip", folder.parent)
    assert run(Path(archive), tmp_path).hash == run(folder, tmp_path).hash


def test_missing_and_corrupt_clips_are_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "audio/1-1-A-0.wav").unlink()
    (copy / "audio/2-2-B-0.wav").write_bytes(b"not audio")
    with pytest.raises(DataError, match=r"(?s)1-1-A-0\.wav: no such file.*2-2-B-0\.wav"):
        run(copy, tmp_path)
    assert len(run(copy, tmp_path, skip_bad=True).clips) == 98


def test_what_is_not_there_is_said_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lists 11 of the 50 classes of esc50; try subset=esc10"):
        run(folder, tmp_path, subset="esc50")
    with pytest.raises(ConfigError, match="subset='esc20'"):
        run(folder, tmp_path, subset="esc20")
    with pytest.raises(ConfigError, match=r"source= is required.*fetch https"):
        esc50.prepare(tmp_path)
    with pytest.raises(DataError, match=r"holds no meta/esc50\.csv"):
        run(folder / "audio", tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data are not beside the repository")
def test_the_real_esc10(tmp_path: Path) -> None:
    source = esc50.prepare(tmp_path, source=str(REAL), subset="esc10")
    clips = list(source.clips)
    assert Counter(clip.fold for clip in clips) == dict.fromkeys(range(1, 6), 80)
    assert set(Counter((clip.fold, clip.label) for clip in clips).values()) == {8}
    assert all((source.root / clip.path).is_file() for clip in clips)
    folds: defaultdict[str, set[int | None]] = defaultdict(set)
    for clip in clips:
        folds[clip.group].add(clip.fold)
    assert all(len(found) == 1 for found in folds.values())  # no recording is in two folds
