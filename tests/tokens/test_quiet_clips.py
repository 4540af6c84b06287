"""Clips that are quieter than the training clips get the tokens of louder ones."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spaudio.tokens import quiet_clips
from spaudio.tokens.config import SpectrogramConfig, TokenConfig
from spaudio.tokens.front_end import FrontEnd
from spaudio.tokens.make_front_end import make_front_end
from spaudio.tokens.normalise import BandNormaliser

RATE, OFFSET = 8000, 1e-6
RECORDINGS = Path(__file__).parents[2] / "recipes/fsdd/recordings"


def word(decibels: float = 0) -> np.ndarray:
    wave = soundfile.read(RECORDINGS / "7_jackson_0.flac", dtype="float32")[0]
    return np.asarray(wave * np.float32(10 ** (decibels / 20)))


def fitted(normalise: str, *waves: np.ndarray) -> FrontEnd:
    config = TokenConfig(RATE, normalise=normalise, spectrogram=SpectrogramConfig(top_db=50))
    bare = make_front_end(config)
    return make_front_end(config, bare.fit([bare.restore(bare.extract(wave)) for wave in waves]))


def untreated(front_end: FrontEnd) -> FrontEnd:
    """The same front-end, without amplification."""
    assert isinstance(front_end.normaliser, BandNormaliser)
    return make_front_end(front_end.config, replace(front_end.normaliser, quietest=None))


def tokens(front_end: FrontEnd, wave: np.ndarray) -> np.ndarray:
    return front_end.tokens(front_end.restore(front_end.extract(wave)))


def test_a_quieter_clip_has_the_tokens_of_the_quietest_training_clips() -> None:
    front_end = fitted("clip_level", word())
    expected, plain = tokens(front_end, word()), untreated(front_end)
    for decibels in (-10, -25, -35):
        assert np.abs(tokens(front_end, word(decibels)) - expected).mean() < 0.05
    assert np.abs(tokens(plain, word(-35)) - expected).mean() > 0.3


def test_other_clips_are_as_they_were() -> None:
    """Louder ones, and all clips if the level is not removed."""
    front_end = fitted("clip_level", word())
    for decibels in (0, 10):
        found = tokens(front_end, word(decibels))
        assert np.array_equal(found, tokens(untreated(front_end), word(decibels)))
    kept = fitted("global", word()).normaliser
    assert isinstance(kept, BandNormaliser)
    assert kept.quietest is None


def test_steady_noise_is_not_amplified() -> None:
    front_end = fitted("clip_level", word())
    plain = untreated(front_end)
    noise = (1e-3 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    assert np.array_equal(tokens(front_end, noise), tokens(plain, noise))
    words = noise.copy()
    words[: len(word())] += word(-20)
    assert not np.array_equal(tokens(front_end, words), tokens(plain, words))


def test_the_quietest_level_is_a_low_percentile_of_the_training_clips() -> None:
    waves = [word(decibels) for decibels in (-20, *range(20))]
    front_end = fitted("clip_level", *waves)
    assert isinstance(front_end.normaliser, BandNormaliser)
    frames = torch.from_numpy(front_end.restore(front_end.extract(word())))
    level = float(quiet_clips.level(frames, OFFSET))
    assert front_end.normaliser.quietest == pytest.approx(level, rel=0.02)
    power = frames.double().exp().sum(dim=1).max() - 64 * OFFSET
    assert level == pytest.approx(float(power), rel=1e-4)


def test_no_clip_is_amplified_by_more_than_40_db_and_silence_stays_silent() -> None:
    power = torch.tensor([[[1.0, 0.5], [1e-3, 0]]]) * 1e-6
    count = torch.tensor([2])
    found = quiet_clips.amplify((power + OFFSET).log(), count, 1e6, OFFSET)
    torch.testing.assert_close(found.exp(), power * 1e4 + OFFSET, rtol=1e-3, atol=1e-9)
    silence = torch.full((1, 2, 4), math.log(OFFSET))
    torch.testing.assert_close(quiet_clips.amplify(silence, count, 1.0, OFFSET), silence)


def test_padding_is_not_part_of_a_clip() -> None:
    front_end = make_front_end(TokenConfig(RATE))
    frames = torch.from_numpy(front_end.restore(front_end.extract(word(-30))))
    count = torch.tensor([len(frames)])
    alone = quiet_clips.amplify(frames[None], count, 0.1, OFFSET)
    padded = torch.cat([frames, torch.full((9, frames.shape[1]), 2.0)])[None]
    together = quiet_clips.amplify(padded, count, 0.1, OFFSET)
    assert torch.equal(together[:, : len(frames)], alone)
    assert not torch.equal(alone[0], frames)
