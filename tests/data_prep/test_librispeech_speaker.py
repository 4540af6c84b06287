import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from data_prep import librispeech_speaker
from spaudio.audio import Prepared
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_corpora import make_librispeech, pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_librispeech(tmp_path_factory.mktemp("librispeech"))


def run(source: Path, data: Path, **options: Any) -> Prepared:
    return run_script(librispeech_speaker.prepare, data, source=source, **options)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_chapter_is_in_two_splits(folder: Path, tmp_path: Path, seed: int) -> None:
    prepared = run(folder, tmp_path, split_seed=seed)
    assert prepared.labels == ("19", "26", "87", "103")
    chapters: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for clip in prepared.clips:
        speaker, chapter, name = clip.path.split("/")
        assert (clip.label, clip.group) == (speaker, f"{speaker}-{chapter}")
        assert name.startswith(f"{speaker}-{chapter}-")
        assert chapters[speaker].setdefault(chapter, clip.split) == clip.split
    assert {speaker: sorted(found.values()) for speaker, found in chapters.items()} == {
        "19": ["test", "train", "valid"],
        "103": ["test", "train", "train", "valid"],
        "87": ["test", "train"],
        "26": ["train"],
    }


def test_archive_parent_and_subset_are_the_same_data(folder: Path, tmp_path: Path) -> None:
    archive = pack(folder, tmp_path / "any-name.tar.gz")
    inner = folder / "LibriSpeech"
    sources = (folder, inner, inner / "train-clean-100", archive)
    assert len({run(source, tmp_path / "data").hash for source in sources}) == 1


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="subset='train-other-500'"):
        run(folder, tmp_path, subset="train-other-500")
    with pytest.raises(DataError, match=r"no dev-clean, .*resources/12/dev-clean\.tar\.gz"):
        run(folder, tmp_path, subset="dev-clean")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "LibriSpeech/train-clean-100/87")
    with pytest.raises(DataError, match="1 of 4 speakers are missing: 87"):
        run(copy, tmp_path)
