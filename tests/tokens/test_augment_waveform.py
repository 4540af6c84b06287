from __future__ import annotations

import numpy as np
import pytest

from spaudio.tokens.augment import AugmentConfig
from spaudio.tokens.augment_waveform import WaveformAugment
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.front_end import cut
from spaudio.tokens.scales import mel_to_hz

CONFIG = TokenConfig(8000, "waveform")


def clip(samples: int = 4010, seed: int = 1) -> np.ndarray:
    wave = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    return cut(wave, CONFIG.hop_samples)


def augment(**settings: float) -> WaveformAugment:
    return WaveformAugment(AugmentConfig(**settings), CONFIG)  # type: ignore[arg-type]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spectrum(frames: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.rfft(frames.reshape(-1)))


def test_all_zero_settings_change_nothing() -> None:
    x = clip()
    for none in (augment(), augment(warp=0.3)):  # warp acts on log-mel frames alone
        assert np.array_equal(none.mask(none.vary(x, rng()), rng()), x)


def test_gain_is_a_factor_in_nats_of_power() -> None:
    ratios = []
    for seed in range(100):
        y = augment(gain=0.5).vary(clip(), rng(seed))
        ratio = y[:10] / clip()[:10]
        assert np.ptp(ratio) < 1e-4
        ratios.append(2 * np.log(ratio.mean()))
    assert np.std(ratios) == pytest.approx(0.5, abs=0.1)


def test_tilt_is_a_smooth_equaliser_of_the_same_length() -> None:
    x = clip(8000)
    y = augment(tilt=1.0).vary(x, rng())
    assert y.shape == x.shape
    power, before = (
        np.square(spectrum(frames)[1:]).reshape(40, -1).sum(axis=1) for frames in (y, x)
    )
    curve = np.log(power / before) / 2
    assert np.ptp(curve) > 0.3
    assert np.abs(np.diff(curve)).max() < 0.2 * np.ptp(curve)


def test_tempo_changes_duration_and_pitch() -> None:
    time = np.arange(8000) / 8000
    tone = cut(np.sin(2 * np.pi * 1000 * time).astype(np.float32), 80)
    lengths = set()
    for seed in range(20):
        y = augment(tempo=0.2).vary(tone, rng(seed))
        lengths.add(len(y))
        sounding = np.abs(y.reshape(-1)).nonzero()[0].max() + 1
        pitch = spectrum(y).argmax() * 8000 / y.size
        assert pitch == pytest.approx(1000 * 8080 / sounding, rel=0.015)
        assert 0.8 * 8000 - 80 <= sounding <= 1.2 * 8080 + 80
    assert len(lengths) > 8


def test_time_shift_keeps_the_length_and_fills_with_silence() -> None:
    x = clip()
    flat = x.reshape(-1)
    shifts = set()
    for seed in range(20):
        y = augment(time_shift=0.3).vary(x, rng(seed)).reshape(-1)
        assert len(y) == len(flat)
        shift = int(np.correlate(y, flat, "full").argmax()) - (len(flat) - 1)
        shifts.add(shift)
        assert abs(shift) <= 0.3 * len(flat)
        expected = np.zeros_like(flat)
        if shift >= 0:
            expected[shift:] = flat[: len(flat) - shift]
        else:
            expected[:shift] = flat[-shift:]
        assert np.array_equal(y, expected)
    assert min(shifts) < 0 < max(shifts)


def test_noise_is_at_most_its_share_of_the_clips_level() -> None:
    x = 0.01 * clip()
    levels = []
    for seed in range(50):
        added = augment(noise=0.2).vary(x, rng(seed)) - x
        levels.append(added.std() / x.std())
    assert 0.15 < max(levels) <= 0.21
    assert min(levels) < 0.05


def test_time_masks_silence_and_mel_masks_filter_out() -> None:
    x = clip(7990)
    y = augment(time_masks=1, time_mask=0.3).mask(x, rng(3))
    assert y is not x
    silent = (y.reshape(-1) == 0) & (x.reshape(-1) != 0)
    assert 0 < silent.sum() <= 0.3 * x.size + 1
    assert np.array_equal(y.reshape(-1)[~silent], x.reshape(-1)[~silent])
    edges = silent.nonzero()[0]
    assert np.ptp(edges) == silent.sum() - 1
    y = augment(mel_masks=1, mel_mask=8).mask(x, rng(1))
    gone = (spectrum(y) < 1e-2 * spectrum(x)).nonzero()[0] * 8000 / x.size
    kept = (np.abs(spectrum(y) / spectrum(x) - 1) < 1e-2).mean()
    assert len(gone) > 10
    widest = mel_to_hz(np.arange(41) / 40 * 35.163757)
    assert np.ptp(gone) <= (widest[8:] - widest[:-8]).max()
    assert kept > 0.5


def test_a_variation_is_its_seeds() -> None:
    every = augment(gain=0.5, tilt=0.5, tempo=0.1, time_shift=0.1, noise=0.1)
    assert np.array_equal(every.vary(clip(), rng(4)), every.vary(clip(), rng(4)))
