"""The front-end in a form for export: equal to what the run did, and blind to padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spaudio.experiment.predict import Predictor
from spaudio.export.check import pad, synthetic_clips
from spaudio.export.module import LogMelTokens, WaveformClassifier
from spaudio.tokens.cache import extractor, restored
from spaudio.tokens.dataset import stack_frames
from spaudio.tokens.logmel import LogMel, LogMelConfig
from spaudio.tokens.normalise import MODES, Normaliser
from tests.fixtures.tiny_run import make_untrained_run


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_tokens_are_those_of_the_run(mode: str, stack: int) -> None:
    front_end = LogMel(LogMelConfig(8000, n_mels=20))
    rng = np.random.default_rng(0)
    mean, std = rng.normal(-6, 1, 20), rng.uniform(1, 3, 20)
    normaliser = Normaliser(mode, mean.astype(np.float32), std.astype(np.float32))
    clips = [clip for clip in synthetic_clips(8000, 0.5) if len(clip) > 1]
    clips += [clips[0][:n] for n in (79, 80, 81, 239, 240, 241)]  # at the edges of a hop and token
    tokens, padding = LogMelTokens(front_end, normaliser, stack)(*pad(clips))
    for clip, found, mask in zip(clips, tokens, padding, strict=True):
        frames = restored(extractor(front_end.config)(clip))
        expected = stack_frames(normaliser(frames), stack)
        assert int((~mask).sum()) == len(expected)
        # A frame that lies between two float16 may be rounded either way.
        np.testing.assert_allclose(found[~mask], expected, atol=2e-2)
        assert np.abs(found[~mask].numpy() - expected).mean() < 1e-4
        assert not found[mask].any()


@pytest.mark.parametrize(
    "tokens", [[], ["tokens=waveform"], ["tokens=waveform", "tokens.normalise=clip"]]
)
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
