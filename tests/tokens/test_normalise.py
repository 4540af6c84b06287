import math

import numpy as np
import pytest

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
