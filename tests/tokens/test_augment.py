from __future__ import annotations

import numpy as np
import pytest

from spaudio.errors import ConfigError
from spaudio.tokens.augment import Augment, AugmentConfig, interpolate


def frames(length: int = 50, bands: int = 20) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(length, bands)).astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_all_zero_settings_change_nothing() -> None:
    x = frames()
    for settings in ({}, {"noise": 0.1}):  # noise acts on waveforms alone
        augment = Augment(AugmentConfig(**settings))  # type: ignore[arg-type]
        assert np.array_equal(augment.mask(augment.vary(x, rng()), rng()), x)


def test_gain_adds_one_level_and_tilt_a_smooth_curve() -> None:
    x = frames()
    level = Augment(AugmentConfig(gain=1.0)).vary(x, rng()) - x
    assert np.ptp(level) < 1e-5
    assert abs(level.mean()) > 0.01
    curve = Augment(AugmentConfig(tilt=1.0)).vary(x, rng()) - x
    assert np.ptp(curve, axis=0).max() < 1e-5  # the same at every frame
    bands = curve[0]
    assert np.ptp(bands) > 0.1
    assert np.abs(np.diff(bands)).max() < np.ptp(bands) / 2  # smooth over the bands


def test_warp_moves_a_peak_along_the_bands_by_at_most_its_share() -> None:
    x = np.zeros((5, 40), dtype=np.float32)
    x[:, 20] = 1
    moved = {int(Augment(AugmentConfig(warp=0.2)).vary(x, rng(s))[0].argmax()) for s in range(40)}
    assert len(moved) > 4
    assert min(moved) >= 16
    assert max(moved) <= 25  # 20 / 0.8


def test_tempo_changes_duration_and_keeps_the_ends() -> None:
    x = np.linspace(0, 1, 50, dtype=np.float32)[:, None].repeat(3, axis=1)
    lengths = set()
    for seed in range(30):
        y = Augment(AugmentConfig(tempo=0.2)).vary(x, rng(seed))
        lengths.add(len(y))
        np.testing.assert_allclose(y[[0, -1]], x[[0, -1]], atol=1e-6)
        np.testing.assert_allclose(np.diff(y[:, 0]), 1 / (len(y) - 1), atol=1e-4)
    assert min(lengths) >= 40
    assert max(lengths) <= 60
    assert len(lengths) > 5


def test_time_shift_keeps_the_length_and_repeats_the_edge() -> None:
    x = np.arange(20, dtype=np.float32)[:, None]
    for seed in range(20):
        y = Augment(AugmentConfig(time_shift=0.3)).vary(x, rng(seed))[:, 0]
        assert len(y) == 20
        steps = np.diff(y)
        assert set(steps) <= {0.0, 1.0}
        assert (steps == 0).sum() <= 6


def test_masks_are_within_bounds_and_leave_the_input_alone() -> None:
    config = AugmentConfig(time_masks=1, time_mask=0.2, mel_masks=1, mel_mask=4)
    x = np.ones((50, 20), dtype=np.float32)
    widest = [0, 0]
    for seed in range(60):
        y = Augment(config).mask(x, rng(seed))
        widest[0] = max(widest[0], int((y == 0).all(axis=1).sum()))
        widest[1] = max(widest[1], int((y == 0).all(axis=0).sum()))
    assert widest == [10, 4]
    assert x.min() == 1


def test_the_same_seed_gives_the_same_variation() -> None:
    config = AugmentConfig(gain=1, tilt=1, warp=0.1, tempo=0.1, time_shift=0.1, time_masks=1,
                           time_mask=0.1, mel_masks=1, mel_mask=3)  # fmt: skip
    augment = Augment(config)
    first, again, other = (augment.vary(frames(), rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_interpolate_reads_a_line_exactly() -> None:
    line = np.arange(10, dtype=np.float32)[:, None] * 2
    positions = np.array([-3.0, 0.0, 0.25, 4.5, 9.0, 20.0])
    np.testing.assert_allclose(interpolate(line, positions)[:, 0], [0, 0, 0.5, 9, 18, 18])


@pytest.mark.parametrize("settings", [{"gain": -1.0}, {"tempo": 1.0}, {"time_mask": 1.5}])
def test_settings_out_of_range_are_named(settings: dict[str, float]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(ConfigError, match=rf"augment\.{name}.*{value}"):
        AugmentConfig(**settings)  # type: ignore[arg-type]
