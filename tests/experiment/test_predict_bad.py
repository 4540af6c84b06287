"""No bad file stops a prediction, hangs it, or gets a class: each is named with its reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spaudio.experiment.predict import Predictor, predict_files
from tests.fixtures.bad_audio import make_bad_audio, wav
from tests.fixtures.tiny_run import make_untrained_run


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFO, no links there")
def test_every_bad_file_is_named_and_the_good_one_predicted(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    reasons = make_bad_audio(folder)
    good = folder / "good.wav"
    good.write_bytes(wav(b"\0\x10\0\xf0" * 800))
    paths = [*(folder / name for name in reasons), good]
    predictor = Predictor(make_untrained_run(tmp_path / "runs"))
    predictions, bad = predict_files(predictor, paths)
    assert [prediction.path for prediction in predictions] == [good]
    said = dict(bad)
    wrong = {name: said.get(folder / name) for name, reason in reasons.items()
             if reason not in (said.get(folder / name) or "")}  # fmt: skip
    assert not wrong
