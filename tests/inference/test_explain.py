"""What decided the answer to a real clip: the model is asked again without it."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch

import spaudio
from spaudio.cli import main
from spaudio.errors import ConfigError
from spaudio.inference.explain import explain_sound
from spaudio.inference.predict import Predictor
from spaudio.tokens.front_end import stack_frames
from spaudio.tokens.normalise import BandNormaliser
from spaudio.tokens.pauses import Pauses
from tests.conftest import write_blank
from tests.fixtures.own_sounds import RECORDINGS
from tests.fixtures.tiny_run import make_untrained_run

CLIP = RECORDINGS / "2_lucas_2.flac"


def test_the_fall_is_that_of_the_model_without_the_part(own_run: Path) -> None:
    predictor = Predictor(own_run)
    normaliser = predictor.front_end.normaliser
    assert isinstance(normaliser, BandNormaliser)
    predictor.front_end.normaliser = replace(normaliser, pauses=Pauses((0, 0), (0, 0)))
    prediction = predictor(CLIP)
    found = explain_sound(predictor, predictor.read(CLIP))
    assert found.label == prediction.label
    assert found.confidence == pytest.approx(prediction.confidence, abs=1e-6)
    assert (found.start, found.seconds[0]) == (0, 0)
    assert found.seconds[-1] == pytest.approx(prediction.seconds, abs=0.01)
    assert (found.hertz[0], found.hertz[-1]) == (0, 4000)
    assert found.drop.shape == (len(found.hertz) - 1, len(found.seconds) - 1)
    start, end, drop = found.intervals[0]
    front_end = predictor.front_end
    restored = front_end.restore(front_end.extract(found.waveform))
    heard = front_end.heard(restored)
    assert (heard.start, heard.stop) != (0, len(restored))  # pauses are cut
    frames = front_end.normalise(restored[heard])
    hop = front_end.config.frame_seconds
    hidden, cut = frames.copy(), heard.start
    last = end == found.seconds[-1]  # with it, all frames that begin in it
    begin, stop = round(start / hop) - cut, None if last else round(end / hop) - cut
    hidden[max(0, begin) : stop] = 0
    stack = front_end.config.stack
    logits = predictor.logits([stack_frames(frames, stack), stack_frames(hidden, stack)])
    number = predictor.inputs.classes.index(found.label)
    shares = (logits.double() / predictor.inputs.temperature).softmax(dim=1)[:, number]
    before, after = (shares / (1 - shares)).log().tolist()
    assert drop == pytest.approx(before - after, abs=1e-4)


def test_other_front_ends_and_long_sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_untrained_run(tmp_path, "tokens=waveform", "tokens.waveform.num_filters=20",
                             "tokens.stem=none")  # fmt: skip
    model = spaudio.load(run, window=0.2)
    wave = np.random.default_rng(0).normal(0, np.linspace(0.05, 0.15, 8000))
    found = model.explain(wave, 8000, label="owl")
    assert len(found.drop) == 1
    assert found.bands == []
    parts = {i: wave[i : i + 1600].astype(np.float32) for i in range(0, 7200, 800)}
    shares = {i: model.probabilities([part])[0, 3].item() for i, part in parts.items()}
    best = max(parts, key=lambda i: shares[i] * parts[i].var())
    assert (found.confidence, found.start) == pytest.approx((shares[best], best / 8000), abs=1e-5)
    assert found.seconds[0] == found.start
    assert found.seconds[-1] == pytest.approx(found.start + 0.2)
    assert found.start > 0.2
    for low, high, _ in found.intervals:
        assert found.start - 1e-6 <= low < high <= found.start + 0.2 + 1e-6
    shifted = model.explain(wave + 0.3, 8000, label="owl")  # no click where a part is hidden
    np.testing.assert_allclose(shifted.drop, found.drop, atol=1e-3)
    # Without a label it is the class of the whole sound, not that of the surest window.
    rows = torch.tensor([[0.0, 0, 0, 1], *[[0.6, 0.2, 0.2, 0]] * 8], dtype=torch.float64)
    monkeypatch.setattr(model, "raw_probabilities", lambda waves: rows)
    found = model.explain(wave, 8000)
    assert (found.label, found.confidence, found.start) == ("cat", pytest.approx(0.6), 0.8)
    with pytest.raises(ConfigError, match="no class 'bat'; the run has cat, cow, dog, owl"):
        model.explain(wave, 8000, label="bat")


def test_the_command_prints_and_draws(
    own_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["explain", str(own_run), str(CLIP)])
    assert matplotlib.image.imread("2_lucas_2.explained.png").shape[1] > 500
    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", write_blank)
        for label in Predictor(own_run).inputs.classes:  # bands may support only some of them
            main(["explain", str(own_run), str(CLIP), "--label", label, "--output", f"{label}.png"])
        main(["explain", str(own_run), str(CLIP), "--label", "four"])  # does not collide with it
    out = capsys.readouterr().out
    assert " s the log-odds fall by " in out
    assert " Hz the log-odds fall by " in out
    assert Path("2_lucas_2.four.explained.png").is_file()
    capsys.readouterr()
    command = ["explain", str(own_run), str(CLIP), "--label", "four", "--output", "x.svg"]
    main([*command, "--window", "0.2"])
    found = re.match(r"four \S+, from (\S+) to (\S+) s\n", capsys.readouterr().out)
    assert found is not None
    assert float(found[2]) - float(found[1]) == pytest.approx(0.2, abs=0.011)
    assert Path("x.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    soundfile.write("two.wav", [0.1, -0.1], 8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as librosa's, of less than a window
        main(["explain", str(own_run), "two.wav"])
    with pytest.raises(SystemExit, match=r"end in \.png or \.svg"):
        main(["explain", str(own_run), str(CLIP), "--output", "x.txt"])
