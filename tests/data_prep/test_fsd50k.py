import random
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from data_prep import fsd50k
from spaudio.audio.manifest import read_manifest
from spaudio.errors import DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_corpora import make_fsd50k


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_fsd50k(tmp_path / "fsd50k")


def test_the_published_split_and_all_labels_of_a_clip(folder: Path, tmp_path: Path) -> None:
    prepared = run_script(fsd50k.prepare, source=folder, data=tmp_path)
    assert prepared.multi_label
    assert prepared.labels == ("Animal", "Bark", "Chime", "Drip")
    assert Counter(c.split for c in prepared.clips) == {"train": 36, "valid": 12, "test": 24}
    labels = {c.path: c.label for c in prepared.clips}
    assert labels["dev_audio/1003.wav"] == "Bark,Drip,Animal"
    assert labels["eval_audio/1048.wav"] == "Bark,Animal"
    assert read_manifest(prepared.manifest) == list(prepared.clips)


def test_what_is_missing_or_damaged_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "FSD50K.dev_audio" / "1000.wav").unlink()
    with pytest.raises(DataError, match=r"1 of 72 clips[^@]*dev_audio/1000\.wav: no such file"):
        run_script(fsd50k.prepare, source=folder, data=tmp_path)
    table = folder / "FSD50K.ground_truth" / "dev.csv"
    table.write_text(table.read_text().replace("Chime", "Chirp"))
    with pytest.raises(DataError, match=r"unknown label 'Chirp'; known: Animal, Bark, Chime"):
        run_script(fsd50k.prepare, source=folder, data=tmp_path)
    table.unlink()
    with pytest.raises(DataError, match=r"ground_truth/dev\.csv: cannot be read"):
        run_script(fsd50k.prepare, source=folder, data=tmp_path)
    shutil.rmtree(folder / "FSD50K.eval_audio")
    with pytest.raises(DataError, match=r"1 of 3 parts[^@]*eval_audio\.z01 .*eval_audio\.zip"):
        run_script(fsd50k.prepare, source=folder, data=tmp_path)


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP is not installed")
def test_archives_as_published_are_split_zips(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for part in fsd50k.FILES:
        # Info-ZIP cuts into pieces of 64 KiB; noise does not shrink.
        (folder / f"FSD50K.{part}" / "noise.bin").write_bytes(random.Random(0).randbytes(100_000))
        command = ["zip", "-q", "-r", "-s", "64k", str(packed / f"FSD50K.{part}.zip")]
        subprocess.run([*command, f"FSD50K.{part}"], cwd=folder, check=True)
    files = {
        part: {path.suffix[1:]: "0" * 32 for path in sorted(packed.glob(f"*.{part}.z*"))}
        for part in fsd50k.FILES
    }
    assert sorted(files["dev_audio"])[:3] == ["z01", "z02", "z03"]
    monkeypatch.setattr(fsd50k, "FILES", files)
    archive = packed / "FSD50K.dev_audio.zip"
    with fsd50k.open_split_zip(archive) as joined, zipfile.ZipFile(joined) as opened:
        assert opened.testzip() is None
    last = archive.with_suffix(f".{sorted(files['dev_audio'])[-2]}")
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(DataError, match="1 of 3 parts"):
        run_script(fsd50k.prepare, source=packed, data=tmp_path / "data")
    with pytest.raises(DataError, match=r"\d+ pieces make up this zip, \d+ are here"):
        fsd50k.open_split_zip(archive)
    last.write_bytes(content)
    assert (
        run_script(fsd50k.prepare, source=packed, data=tmp_path / "data").hash
        == run_script(fsd50k.prepare, source=folder, data=tmp_path / "data").hash
    )
