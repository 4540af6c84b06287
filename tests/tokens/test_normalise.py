import math

import numpy as np
import pytest
import torch

from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser

RNG = np.random.default_rng(0)
CLIPS = [
    (RNG.normal(3, 2, size=(n, 5)) + RNG.normal(0, 4, size=5)).astype(np.float32)
    for n in (40, 7, 90, 21)
]


@pytest.mark.parametrize("mode", ["global", "clip_level"])
def test_bands_have_zero_mean_and_unit_variance(mode: str) -> None:
    normaliser = BandNormaliser.fit(mode, CLIPS)
    frames = np.concatenate([normaliser(clip) for clip in CLIPS])
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-4)
    tone = np.eye(5, dtype=np.float32)[2]
    for clip in CLIPS:
        if mode == "clip_level":  # whatever the pauses; differences between bands are kept
            np.testing.assert_allclose(normaliser(clip + 5), normaliser(clip), atol=1e-4)
            kept = (5 * tone - 1) / normaliser.std
            np.testing.assert_allclose(
                normaliser(clip + 5 * tone) - normaliser(clip),
                np.tile(kept, (len(clip), 1)),
                atol=1e-4,
            )
            paused = np.concatenate([clip, np.full_like(clip, -30)])
            louder = math.log(2) / normaliser.std  # half the mean power
            np.testing.assert_allclose(
                normaliser(paused)[: len(clip)], normaliser(clip) + louder, atol=1e-4
            )
    constant = np.full((10, 3), -13.8, dtype=np.float32)
    assert np.abs(BandNormaliser.fit(mode, [constant] * 2)(constant)).max() < 0.01


def test_levels_become_one_over_the_split_or_in_each_clip() -> None:
    samples = np.concatenate([LevelNormaliser.fit("global", CLIPS)(clip).ravel() for clip in CLIPS])
    assert np.square(samples).mean() == pytest.approx(1, rel=1e-5)
    each = LevelNormaliser.fit("clip_level", CLIPS)
    for clip in CLIPS:
        assert np.square(each(clip)).mean() == pytest.approx(1, rel=1e-5)
    assert np.abs(each(np.zeros((4, 5), np.float32))).max() == 0


def test_what_is_all_but_silent_is_not_amplified() -> None:
    """Dither is at -95 dB, and a band above the bandwidth hardly varies."""
    noise = np.random.default_rng(0).uniform(-1, 1, (50, 80)).astype(np.float32)
    dither, level = noise / 2**15, LevelNormaliser("clip_level", 1.0)
    batch = torch.from_numpy(dither)[None]
    for found in (
        LevelNormaliser.fit("global", [dither])(dither),
        level(dither),
        level(batch, lambda x: x.square().mean(dim=(1, 2), keepdim=True)).numpy(),
    ):
        assert 0 < np.abs(found).max() < 0.4
    band = 1e-3 * noise - 13.8
    assert np.abs(BandNormaliser.fit("global", [band])(band)).max() < 0.01
