import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep import fsdd
from spaudio.audio import Prepared
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import SPEAKERS, make_fsdd, make_fsdd_zip, run_script

REAL = Path(__file__).resolve().parents[3] / "shared/data/free-spoken-digit-dataset-master.zip"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fsdd(tmp_path_factory.mktemp("fsdd"), digits=range(3))


def run(source: Path, data: Path, **options: Any) -> Prepared:
    return run_script(fsdd.prepare, data, source=source, **options)


def test_the_official_split_tests_on_recordings_0_to_4(folder: Path, tmp_path: Path) -> None:
    prepared = run(folder, tmp_path)
    assert prepared.labels == ("0", "1", "2")
    for clip in prepared.clips:
        digit, speaker, index = clip.path.removesuffix(".wav").split("_")
        assert (clip.label, clip.group) == (digit, speaker)
        assert clip.split == ("test" if int(index) < 5 else "train")
    assert Counter(clip.split for clip in prepared.clips) == {"test": 45, "train": 27}


def test_the_speaker_split_leaves_one_out(folder: Path, tmp_path: Path) -> None:
    clips = run(folder, tmp_path, split="speaker", test_speaker="theo").clips
    assert {c.group for c in clips if c.split == "test"} == {"theo"}
    assert {c.group for c in clips if c.split == "train"} == {*SPEAKERS} - {"theo"}


def test_archive_folder_and_recordings_are_the_same_data(tmp_path: Path) -> None:
    archive = make_fsdd_zip(tmp_path / "fsdd.zip", digits=range(2), clips=6)
    from_zip = run(archive, tmp_path / "data")
    folder = make_fsdd(tmp_path / "folder", digits=range(2), clips=6)
    assert run(folder, tmp_path / "data").hash == from_zip.hash
    assert run(folder / "recordings", tmp_path / "data").hash == from_zip.hash
    assert len(from_zip.clips) == 36
    # Both splits share one unpacked copy.
    run(archive, tmp_path / "data", split="speaker", test_speaker="theo")
    assert len(list((tmp_path / "data").rglob("unpacked-*"))) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"split": "speaker", "test_speaker": "bob"}, "choose one of george, jackson, theo"),
        ({"split": "speaker"}, "choose one of george, jackson, theo"),
        ({"split": "random"}, "split='random'"),
        ({"test_speaker": "theo"}, "test_speaker='theo' needs split=speaker"),
    ],
)
def test_options_that_do_not_fit(
    folder: Path, tmp_path: Path, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(folder, tmp_path, **options)


def test_another_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "recordings" / "0_theo_1.wav").rename(copy / "recordings" / "zero.wav")
    with pytest.raises(DataError, match=r"zero\.wav: not named"):
        run(copy, tmp_path)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no recordings"):
        run(tmp_path / "void", tmp_path)


def test_a_download_must_hold_the_known_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_fsdd_zip(tmp_path / "fsdd.zip", digits=range(1), clips=1)
    monkeypatch.setattr(fsdd, "download", lambda url, target, sha256: archive)
    with pytest.raises(DataError, match=f"{fsdd.RECORDINGS_SHA256}.*source="):
        fsdd.prepare(tmp_path / "work")


@pytest.mark.skipif(not REAL.is_file(), reason="the real archive is not beside the repository")
def test_the_real_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its recordings have the checksum that was published for the pinned version.
    monkeypatch.setattr(fsdd, "download", lambda url, target, sha256: REAL)
    clips = list(fsdd.prepare(tmp_path).clips)
    assert Counter(clip.split for clip in clips) == {"train": 2700, "test": 300}
    assert len({clip.group for clip in clips}) == 6
