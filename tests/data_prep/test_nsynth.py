import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_prep import nsynth
from spaudio.audio import Prepared
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script, spoil
from tests.fixtures.tiny_corpora import make_nsynth, pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nsynth(tmp_path_factory.mktemp("nsynth"))


def run(source: Path, data: Path, **options: Any) -> Prepared:
    return run_script(nsynth.prepare, data, source=source, **options)


LABELS = {
    "family": ("bass", "brass", "keyboard"),
    "source": ("acoustic", "electronic", "synthetic"),
    "pitch": ("60", "61", "62"),
}


@pytest.mark.parametrize("task", LABELS)
def test_labels_come_from_the_json(folder: Path, tmp_path: Path, task: str) -> None:
    prepared = run(folder, tmp_path, task=task)
    assert prepared.labels == LABELS[task]
    for clip in prepared.clips:
        instrument, pitch, _ = Path(clip.path).stem.split("-")
        family, source, _ = instrument.split("_")
        assert clip.path.startswith(f"{clip.split}/audio/")
        assert clip.group == instrument
        assert clip.label == {"family": family, "source": source, "pitch": f"{int(pitch)}"}[task]


def test_archives_are_found_and_missing_parts_are_named(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    for split in ("train", "test"):
        part = tmp_path / split / f"nsynth-{split}"
        shutil.copytree(folder / part.name, part)
        pack(part.parent, packed / f"nsynth-{split}.jsonwav.tar.gz")
    with pytest.raises(DataError, match=r"1 of 3 parts[^@]*nsynth-valid\.jsonwav\.tar\.gz"):
        run(packed, tmp_path / "data")
    shutil.copytree(folder / "nsynth-valid", packed / "deeper" / "nsynth-valid")
    assert run(packed, tmp_path / "data").hash == run(folder, tmp_path / "data").hash


def test_nothing_is_downloaded_without_a_checksum(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source= is required.*nsynth-train\.jsonwav\.tar\.gz"):
        nsynth.prepare(tmp_path)
    with pytest.raises(ConfigError, match="task='timbre'"):
        nsynth.prepare(tmp_path, source=str(tmp_path), task="timbre")


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    next((copy / "nsynth-test/audio").iterdir()).unlink()
    with pytest.raises(DataError, match=r"1 of 66 clips[^@]*test/audio/.*: no such file"):
        run(copy, tmp_path / "data")
    path = copy / "nsynth-test/examples.json"
    notes = json.loads(path.read_text())
    name = next(iter(notes))
    notes[name]["instrument_str"] = "bass_acoustic_000"
    path.write_text(json.dumps(notes))
    with pytest.raises(DataError, match=r"1 instruments .* are in training too: bass_acoustic_000"):
        run(copy, tmp_path / "data")
    spoil(path)
    with pytest.raises(DataError, match=r"examples\.json: cannot be read"):
        run(copy, tmp_path / "data")
