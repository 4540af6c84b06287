from __future__ import annotations

import numpy as np
import pytest

from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser

RNG = np.random.default_rng(0)
CLIPS = [
    (RNG.normal(3, 2, size=(n, 5)) + RNG.normal(0, 4, size=5)).astype(np.float32)
    for n in (40, 7, 90, 21)
]


def test_global_gives_zero_mean_and_unit_variance_over_training_frames() -> None:
    normaliser = BandNormaliser.fit("global", CLIPS)
    frames = np.concatenate([normaliser(clip) for clip in CLIPS])
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-5)


def test_clip_removes_whatever_is_constant_over_a_clip() -> None:
    normaliser = BandNormaliser.fit("clip", CLIPS)
    channel = RNG.normal(0, 10, size=5).astype(np.float32)
    for clip in CLIPS:
        np.testing.assert_allclose(normaliser(clip + channel), normaliser(clip), atol=1e-4)
        np.testing.assert_allclose(normaliser(clip).mean(axis=0), 0, atol=1e-5)


def test_clip_std_removes_the_range_of_each_band_too() -> None:
    normaliser = BandNormaliser.fit("clip_std", CLIPS)
    scale = np.array([0.1, 1, 3, 7, 0.5], dtype=np.float32)
    for clip in CLIPS:
        np.testing.assert_allclose(normaliser(clip * scale), normaliser(clip), atol=1e-4)
        np.testing.assert_allclose(normaliser(clip).std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("mode", ["global", "clip", "clip_std"])
def test_a_band_that_never_moves_stays_finite_and_small(mode: str) -> None:
    constant = [np.full((10, 3), -13.8, dtype=np.float32)] * 2
    normaliser = BandNormaliser.fit(mode, constant)
    assert np.abs(normaliser(constant[0])).max() < 0.01


def test_levels_become_one_over_the_split_or_in_each_clip() -> None:
    samples = np.concatenate([LevelNormaliser.fit("global", CLIPS)(clip).ravel() for clip in CLIPS])
    assert np.square(samples).mean() == pytest.approx(1, rel=1e-5)
    each = LevelNormaliser.fit("clip", CLIPS)
    for clip in CLIPS:
        assert np.square(each(clip)).mean() == pytest.approx(1, rel=1e-5)
        np.testing.assert_allclose(each(3 * clip), each(clip), rtol=1e-5)
    assert np.abs(each(np.zeros((4, 5), np.float32))).max() == 0
