from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_prep import fsd50k
from spaudio.audio import Prepared, prepare
from spaudio.audio.manifest import read_manifest
from spaudio.errors import DataError
from tests.fixtures.tiny_corpora import make_fsd50k, spoil


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_fsd50k(tmp_path / "fsd50k")


def run(source: Path, data: Path) -> Prepared:
    return prepare(
        "fsd50k",
        lambda work: fsd50k.prepare(work, source=str(source)),
        folder=data,
        options={"source": str(source)},
        progress=False,
    )


def test_the_published_split_and_all_labels_of_a_clip(folder: Path, tmp_path: Path) -> None:
    prepared = run(folder, tmp_path)
    assert prepared.multi_label
    assert prepared.labels == ("Animal", "Bark", "Chime", "Drip")
    assert Counter(c.split for c in prepared.clips) == {"train": 36, "valid": 12, "test": 24}
    labels = {c.path: c.label for c in prepared.clips}
    assert labels["dev_audio/1003.wav"] == "Bark,Drip,Animal"
    assert labels["eval_audio/1048.wav"] == "Bark,Animal"
    assert read_manifest(prepared.manifest) == list(prepared.clips)


def test_what_is_missing_or_damaged_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "FSD50K.dev_audio" / "1000.wav").unlink()
    spoil(folder / "FSD50K.eval_audio" / "1050.wav")
    with pytest.raises(DataError, match="2 of 72 clips") as caught:
        run(folder, tmp_path)
    assert "dev_audio/1000.wav: no such file" in str(caught.value)
    assert "eval_audio/1050.wav: truncated" in str(caught.value)
    table = folder / "FSD50K.ground_truth" / "dev.csv"
    table.write_text(table.read_text().replace("Chime", "Chirp"))
    with pytest.raises(DataError, match=r"unknown label 'Chirp'; known: Animal, Bark, Chime"):
        run(folder, tmp_path)
    table.unlink()
    with pytest.raises(DataError, match=r"ground_truth: a table is missing .*dev\.csv"):
        run(folder, tmp_path)
    shutil.rmtree(folder / "FSD50K.eval_audio")
    with pytest.raises(DataError, match=r"1 of 3 parts[^@]*eval_audio\.z01 .*eval_audio\.zip"):
        run(folder, tmp_path)


def test_archives_as_published_are_split_zips(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for part in fsd50k.FILES:
        archive = shutil.make_archive(str(packed / part), "zip", folder, f"FSD50K.{part}")
        Path(archive).rename(packed / f"FSD50K.{part}.zip")
    with pytest.raises(DataError, match="2 of 3 parts"):  # z01 and on are not here
        run(packed, tmp_path / "data")
    whole = [type(p)(p.name, dict([list(p.files.items())[-1]]), p.folder) for p in fsd50k.PARTS]
    monkeypatch.setattr(fsd50k, "PARTS", whole)
    assert run(packed, tmp_path / "data").hash == run(folder, tmp_path / "data").hash
