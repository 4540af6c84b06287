"""FSD50K is published as split zips."""

import random
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from data_prep import fsd50k
from spaudio.errors import DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_corpora import make_fsd50k


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP is not installed")
def test_archives_as_published_are_split_zips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, packed = make_fsd50k(tmp_path / "fsd50k"), tmp_path / "packed"
    packed.mkdir()
    files: dict[str, dict[str, str]] = {}
    for part in fsd50k.FILES:
        # Info-ZIP cuts into pieces of 64 KiB; noise does not shrink.
        (folder / f"FSD50K.{part}" / "noise.bin").write_bytes(random.Random(0).randbytes(100_000))
        command = ["zip", "-q", "-r", "-s", "64k", str(packed / f"FSD50K.{part}.zip")]
        subprocess.run([*command, f"FSD50K.{part}"], cwd=folder, check=True)
        files[part] = {p.suffix[1:]: "0" * 32 for p in sorted(packed.glob(f"*.{part}.z*"))}
    assert sorted(files["dev_audio"])[:3] == ["z01", "z02", "z03"]
    monkeypatch.setattr(fsd50k, "FILES", files)
    run = partial(run_script, fsd50k.prepare, tmp_path / "data")
    archive = packed / "FSD50K.dev_audio.zip"
    with fsd50k.SplitZip(archive) as opened:
        assert opened.testzip() is None
    last = archive.with_suffix(f".{sorted(files['dev_audio'])[-2]}")
    last.rename(tmp_path / "piece")
    with pytest.raises(DataError, match="1 of 3 parts"):
        run(source=packed)
    with pytest.raises(DataError, match=r"\d+ pieces make up this zip, \d+ are here"):
        fsd50k.SplitZip(archive)
    (tmp_path / "piece").rename(last)
    assert run(source=packed).hash == run(source=folder).hash
