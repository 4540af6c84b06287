from collections import Counter
from pathlib import Path

import pytest
from torchaudio.datasets import gtzan as lists

from data_prep import gtzan
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_folds import make_gtzan

TRACKS = ["blues.00029", "blues.00000", "blues.00012", "jazz.00054", "jazz.00012"]


def test_the_filtered_split(tmp_path: Path) -> None:
    source = make_gtzan(tmp_path / "a", TRACKS, lists.gtzan_genres, suffix="au")
    clips = list(gtzan.prepare(tmp_path, source=str(source)).clips)
    assert Counter(clip.split for clip in clips) == {"train": 443, "valid": 197, "test": 290}
    prepared = run_script(gtzan.prepare, tmp_path, source=source, skip_bad=True)
    assert {clip.path: clip.split for clip in prepared.clips} == {
        "blues/blues.00029.au": "train",
        "blues/blues.00000.au": "valid",
        "blues/blues.00012.au": "test",
        "jazz/jazz.00054.au": "train",
        "jazz/jazz.00012.au": "train",
    }
    assert prepared.labels == ("blues", "jazz")


def test_the_track_that_is_known_to_be_damaged_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_gtzan(tmp_path / "a", TRACKS, lists.gtzan_genres, suffix="wav")
    (source / "genres/jazz/jazz.00054.wav").write_bytes(b"\x03\x01" * 4000)
    listed = {clip.path for clip in gtzan.prepare(tmp_path, source=str(source)).clips}
    assert "jazz/jazz.00054.wav" not in listed
    assert len(listed) == 929
    assert "jazz.00054.wav is damaged" in capsys.readouterr().err
    # A track that is missing is an error.
    with pytest.raises(DataError, match=r"blues\.00001\.wav: no such file"):
        run_script(gtzan.prepare, tmp_path, source=source)
    with pytest.raises(ConfigError, match=r"source= is required.*genres\.tar\.gz"):
        gtzan.prepare(tmp_path)
