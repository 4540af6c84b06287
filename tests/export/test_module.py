"""The module that is exported: equal to the run's predictor, whatever the padding."""

from pathlib import Path

import pytest
import torch

from spaudio.experiment.predict import Predictor
from spaudio.export.check import pad, synthetic_clips
from spaudio.export.module import WaveformClassifier
from tests.fixtures.tiny_run import make_untrained_run


@pytest.mark.parametrize("tokens", [[], ["tokens=waveform", "tokens.normalise=clip"]])
def test_a_clip_alone_equals_the_clip_in_a_batch(tmp_path: Path, tokens: list[str]) -> None:
    made = make_untrained_run(
        tmp_path, *tokens, "filter=bank", "tokens.stack=2", "model.pooling=attention"
    )
    predictor = Predictor(made)
    module = WaveformClassifier(predictor)
    clips = synthetic_clips(8000, 0.5)
    together = module(*pad(clips))
    original = predictor.probabilities(clips)
    assert original.std(dim=0).max() > 1e-2  # the clips can be told apart
    torch.testing.assert_close(together, original, atol=1e-4, rtol=0)
    for clip, row in zip(clips, together, strict=True):
        torch.testing.assert_close(module(*pad([clip]))[0], row, atol=1e-5, rtol=0)
