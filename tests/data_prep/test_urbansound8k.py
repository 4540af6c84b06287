from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import pytest

from data_prep import urbansound8k
from spaudio.audio import SourceClips
from spaudio.errors import ConfigError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_folds import URBAN, make_urbansound8k


def listing(source: Path) -> SourceClips:
    return urbansound8k.prepare(source.parent / "work", source=str(source))


def test_official_folds(tmp_path: Path) -> None:
    folder = make_urbansound8k(tmp_path / "UrbanSound8K", clips=1)
    prepared = run_script(urbansound8k.prepare, tmp_path / "data", source=folder)
    assert prepared.labels == URBAN
    assert Counter(clip.fold for clip in prepared.clips) == dict.fromkeys(range(1, 11), 10)
    for clip in prepared.clips:
        assert clip.path.startswith(f"audio/fold{clip.fold}/{clip.group}-")


def test_the_archive_as_it_comes(tmp_path: Path) -> None:
    make_urbansound8k(tmp_path / "UrbanSound8K", folds=1)
    with tarfile.open(tmp_path / "UrbanSound8K.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "UrbanSound8K", "UrbanSound8K")
    source = listing(tmp_path / "UrbanSound8K.tar.gz")
    assert all((source.root / clip.path).is_file() for clip in source.clips)
    assert len(list(source.clips)) == 20


def test_a_random_split_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"slices come from one recording.*folds=all"):
        urbansound8k.prepare(tmp_path, source="x", split="random")


def test_a_download_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def download(url: str, target: Path, checksum: str) -> Path:
        asked.append((url, checksum))
        return make_urbansound8k(tmp_path / "UrbanSound8K", folds=1)

    monkeypatch.setattr(urbansound8k, "download", download)
    urbansound8k.prepare(tmp_path / "work")
    assert asked == [(urbansound8k.URL, urbansound8k.MD5)]
