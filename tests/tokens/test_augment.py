"""Augmentation of log-mel frames and of waveforms."""

import math

import numpy as np
import pytest

from spaudio.errors import ConfigError
from spaudio.tokens.augment import Augment, AugmentConfig
from spaudio.tokens.augment_waveform import WaveformAugment
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.make_front_end import make_front_end
from spaudio.tokens.scales import hz_to_mel, mel_to_hz
from spaudio.tokens.waveform_front_end import cut

FRAMES = np.random.default_rng(1).standard_normal((50, 20), np.float32)
WAVE = cut(np.random.default_rng(1).standard_normal(7990, np.float32), 80)


def bands(**settings: float) -> Augment:
    return Augment(AugmentConfig(**settings), None)  # type: ignore[arg-type]


def waves(**settings: float) -> WaveformAugment:
    return WaveformAugment(AugmentConfig(**settings), TokenConfig(8000, "waveform"))  # type: ignore[arg-type]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spectrum(frames: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.rfft(frames.reshape(-1)))


def test_zero_and_foreign_settings_change_nothing() -> None:
    none = [(bands(), FRAMES), (waves(), WAVE), (waves(warp=0.3), WAVE)]
    for augment, x in none:
        assert np.array_equal(augment.mask(augment.vary(x, rng()), rng()), x)


def test_gain_changes_the_level_alone() -> None:
    level = bands(gain=1.0).vary(FRAMES, rng()) - FRAMES
    assert np.ptp(level) < 1e-5
    assert abs(level.mean()) > 0.01
    ratios = [waves(gain=0.5).vary(WAVE, rng(seed))[:10] / WAVE[:10] for seed in range(100)]
    assert max(np.ptp(ratio) for ratio in ratios) < 1e-4
    nats = [2 * np.log(ratio.mean()) for ratio in ratios]
    assert np.std(nats) == pytest.approx(0.5, abs=0.1)


def test_a_change_of_level_is_that_of_a_louder_recording() -> None:
    """Also near the floor of the logarithm, which a louder recording does not raise."""
    power, offset = np.exp(FRAMES * 8 - 14), np.float32(1e-6)
    augment = Augment(AugmentConfig(gain=1.0), TokenConfig())
    varied = augment.vary(np.log(power + offset), rng())
    nats = rng().normal(0, 1.0)
    assert abs(nats) > 0.1
    np.testing.assert_allclose(varied, np.log(power * np.exp(nats) + offset), atol=1e-3)


def test_tilt_is_a_smooth_curve_over_frequency() -> None:
    curve = bands(tilt=1.0).vary(FRAMES, rng()) - FRAMES
    assert np.ptp(curve, axis=0).max() < 1e-5  # the same at every frame
    y = waves(tilt=1.0).vary(WAVE, rng())
    assert y.shape == WAVE.shape
    powers = [np.square(spectrum(x)[1:]).reshape(40, -1).sum(axis=1) for x in (y, WAVE)]
    for gains in (curve[0], np.log(powers[0] / powers[1]) / 2):
        assert np.ptp(gains) > 0.1
        assert np.abs(np.diff(gains)).max() < np.ptp(gains) / 2


def test_tilt_is_three_cosines_over_the_bands_in_nats_of_power() -> None:
    weights = rng().normal(0, 0.3, 3)

    def curve(position: np.ndarray) -> np.ndarray:
        """Half, one and one and a half periods from the lowest to the highest frequency."""
        periods = np.array([0.5, 1, 1.5])
        return np.asarray(np.cos(2 * np.pi * position[:, None] * periods) @ weights)

    found = bands(tilt=0.3).vary(FRAMES, rng())[0] - FRAMES[0]
    np.testing.assert_allclose(found, curve(np.linspace(0, 1, 20)), atol=1e-5)
    level = 2 * np.log(spectrum(waves(tilt=0.3).vary(WAVE, rng())) / spectrum(WAVE))
    mel = hz_to_mel(np.fft.rfftfreq(WAVE.size, 1 / 8000)) / hz_to_mel(4000)
    np.testing.assert_allclose(level[1:-1], curve(mel)[1:-1], atol=0.01)


def test_warp_moves_a_peak_along_the_bands_by_at_most_its_share() -> None:
    x = np.zeros((5, 40), dtype=np.float32)
    x[:, 20:22] = 1, 0.9  # a stretch may leave out one band
    moved = {int(bands(warp=0.2).vary(x, rng(seed))[0].argmax()) for seed in range(40)}
    assert len(moved) > 4
    assert min(moved) >= 16
    assert max(moved) <= 25  # 20 / 0.8


def test_stretching_does_not_smooth_noise() -> None:
    noise = rng(0).normal(size=(400, 64)).astype(np.float32)
    stretched = [bands(warp=0.1, tempo=0.15).vary(noise, rng(seed)) for seed in range(20)]
    assert np.mean([x.var() for x in stretched]) == pytest.approx(noise.var(), rel=0.02)


def test_tempo_of_frames_changes_duration_and_keeps_the_ends() -> None:
    x = np.linspace(0, 1, 50, dtype=np.float32)[:, None].repeat(3, axis=1)
    lengths = set()
    for seed in range(30):
        y = bands(tempo=0.2).vary(x, rng(seed))
        lengths.add(len(y))
        assert {*y[:, 0]} <= {*x[:, 0]}
        np.testing.assert_allclose(y[:, 0], np.linspace(0, 1, len(y)), atol=0.5 / 49 + 1e-5)
    assert 40 <= min(lengths) < 45
    assert 55 < max(lengths) <= 60


def test_tempo_of_waveforms_changes_duration_and_pitch() -> None:
    time = np.arange(8000) / 8000
    tone = cut(np.sin(2 * np.pi * 1000 * time).astype(np.float32), 80)
    lengths = set()
    for seed in range(20):
        y = waves(tempo=0.2).vary(tone, rng(seed))
        lengths.add(len(y))
        sounding = np.abs(y.reshape(-1)).nonzero()[0].max() + 1
        pitch = spectrum(y).argmax() * 8000 / y.size
        assert pitch == pytest.approx(1000 * 8080 / sounding, rel=0.015)
        assert 0.8 * 8000 - 80 <= sounding <= 1.2 * 8080 + 80
    assert len(lengths) > 8


def test_time_shift_keeps_the_length_and_fills_the_gap() -> None:
    shifts = set()
    wave = WAVE.reshape(-1)
    for seed in range(20):
        y = bands(time_shift=0.3).vary(np.arange(20, dtype=np.float32)[:, None], rng(seed))[:, 0]
        shift = round(10 - y[10])
        assert np.array_equal(y, np.clip(np.arange(20) - shift, 0, 19))  # the edge repeats
        assert abs(shift) <= 6
        y = waves(time_shift=0.3).vary(WAVE, rng(seed)).reshape(-1)
        shift = int(np.correlate(y, wave, "full").argmax()) - (len(wave) - 1)
        silence = np.pad(wave, len(wave))
        assert np.array_equal(y, silence[len(wave) - shift : 2 * len(wave) - shift])
        assert abs(shift) <= 0.3 * len(wave)
        shifts.add(shift)
    assert min(shifts) < 0 < max(shifts)


def test_excerpts_are_not_shifted() -> None:
    for augment, clip in ((bands(time_shift=0.5), FRAMES), (waves(time_shift=0.5), WAVE)):
        parts = [clip[start : start + 20] for start in range(len(clip) - 19)]
        for seed in range(10):
            excerpt = augment.vary(clip, rng(seed), 20)
            assert any(np.array_equal(excerpt, part) for part in parts)


def test_roll_is_circular() -> None:
    ramp = np.arange(20, dtype=np.float32)[:, None]
    starts = {int(bands(roll=1.0).vary(ramp, rng(seed))[:, 0].argmin()) for seed in range(40)}
    assert len(starts) > 10
    for seed in range(5):
        y = bands(roll=0.5).vary(ramp, rng(seed))[:, 0]
        assert np.array_equal(np.roll(y, -int(y.argmin())), ramp[:, 0])
        y, wave = waves(roll=0.5).vary(WAVE, rng(seed)).reshape(-1), WAVE.reshape(-1)
        correlation = np.fft.irfft(np.fft.rfft(y) * np.fft.rfft(wave).conj(), len(y))
        shift = int(correlation.argmax())
        assert np.array_equal(y, np.roll(wave, shift))
        assert 0 < shift <= 0.5 * len(wave)


def test_noise_is_at_most_its_share_of_the_clips_level() -> None:
    x = 0.01 * WAVE
    levels = [(waves(noise=0.2).vary(x, rng(s)) - x).std() / x.std() for s in range(200)]
    assert 0.15 < max(levels) <= 0.201
    assert 0.0019 < min(levels) < 0.004  # 40 dB lower
    assert np.median(levels) == pytest.approx(0.02, rel=0.3)  # uniform in dB


def test_noise_in_frames_is_that_in_the_samples() -> None:
    """Of the same level and colour, in the mean over time of each band."""

    class Fixed(np.random.Generator):
        def __init__(self, *values: float) -> None:
            super().__init__(np.random.PCG64(0))
            self.values = np.array(values)

        def uniform(self, *_: object) -> np.ndarray:  # type: ignore[override]
            return self.values

    tokens = TokenConfig(8000)
    front_end = make_front_end(tokens)
    time = np.arange(16_000) / 8000
    tone = (np.sin(2 * np.pi * 500 * time) * (time > 0.5)).astype(np.float32)
    augments = Augment(AugmentConfig(noise=1.0), tokens), waves(noise=1.0)
    for below, exponent in ((10.0, 0.0), (20.0, 1.0), (0.0, 2.0)):
        draws = Fixed(below, exponent), Fixed(below, exponent)
        frames = augments[0].vary(front_end.restore(front_end.extract(tone)), draws[0])
        noisy = augments[1].vary(cut(tone, 80), draws[1]).reshape(-1)
        expected = front_end.restore(front_end.extract(noisy[: len(tone)]))
        # Before the tone begins.
        powers = [np.log(np.exp(x[:48]).mean(axis=0)) for x in (frames, expected)]
        assert np.abs(powers[0] - powers[1])[2:].max() < 0.7
        assert np.abs(powers[0] - powers[1]).mean() < 0.25
        spreads = [x[:48, 2:].std(axis=0).mean() for x in (frames, expected)]
        assert spreads[0] == pytest.approx(spreads[1], rel=0.15)


def test_silence_gets_no_noise() -> None:
    silence = np.full((30, 64), math.log(1e-6), np.float32)
    varied = Augment(AugmentConfig(noise=1.0), TokenConfig()).vary(silence, rng())
    np.testing.assert_allclose(varied, silence, atol=1e-4)
    assert not waves(noise=1.0).vary(0 * WAVE, rng()).any()


def test_masks_of_frames_are_within_bounds_and_leave_the_input_alone() -> None:
    augment = bands(time_masks=1, time_mask=0.2, mel_masks=1, mel_mask=4)
    x = np.ones((50, 20), dtype=np.float32)
    masked = [augment.mask(x, rng(seed)) == 0 for seed in range(60)]
    assert max(y.all(axis=1).sum() for y in masked) == 10
    assert max(y.all(axis=0).sum() for y in masked) == 4
    assert x.min() == 1
    wide = bands(time_masks=1, time_mask=0.5, mel_masks=1, mel_mask=10)
    hidden = [wide.mask(x, rng(seed)) == 0 for seed in range(200)]
    for axis in (0, 1):  # no place is always seen
        assert np.logical_or.reduce([y.all(axis=axis) for y in hidden]).all()
    # Masks do not hide a clip of one frame, of which each may have a part, nor all of few bands.
    both = bands(time_masks=2, time_mask=0.2, mel_masks=2, mel_mask=10)
    assert all(both.mask(x[:1, :11], rng(seed)).any() for seed in range(200))


def test_there_are_as_many_masks_as_set() -> None:
    def parts(masked: np.ndarray) -> int:
        return int((np.diff(masked.astype(int), prepend=0) == 1).sum())

    frames, wave = np.ones((500, 200), np.float32), WAVE.reshape(-1)
    for number in (2, 3):
        times = {"time_masks": number, "time_mask": 0.05}
        rows, columns, silent = [], [], []
        for seed in range(20):
            rows.append(parts((bands(**times).mask(frames, rng(seed)) == 0).all(axis=1)))
            both = bands(mel_masks=number, mel_mask=9).mask(frames, rng(seed))
            columns.append(parts((both == 0).all(axis=0)))
            y = waves(**times).mask(WAVE, rng(seed)).reshape(-1)
            silent.append(parts((y == 0) & (wave != 0)))
        assert max(rows) == max(columns) == max(silent) == number
    both = waves(mel_masks=2, mel_mask=4)
    gone = [spectrum(both.mask(WAVE, rng(s)))[1:] < 1e-3 * spectrum(WAVE)[1:] for s in range(20)]
    assert max(map(parts, gone)) == 2


def test_time_masks_of_waveforms_silence_and_mel_masks_filter_out() -> None:
    x = WAVE.reshape(-1)
    y = waves(time_masks=1, time_mask=0.3).mask(WAVE, rng(3)).reshape(-1)
    silent = (y == 0) & (x != 0)
    assert 0 < silent.sum() <= 0.3 * x.size + 1
    assert np.array_equal(y[~silent], x[~silent])
    assert np.ptp(silent.nonzero()[0]) == silent.sum() - 1
    change = spectrum(waves(mel_masks=1, mel_mask=8).mask(WAVE, rng(1))) / spectrum(WAVE)
    gone = (change < 1e-2).nonzero()[0] * 8000 / x.size
    assert len(gone) > 10
    widest = mel_to_hz(np.arange(41) / 40 * 35.163757)
    assert np.ptp(gone) <= (widest[8:] - widest[:-8]).max()
    assert (np.abs(change - 1) < 1e-2).mean() > 0.5


@pytest.mark.parametrize("decibels", [-9.0, -11.0])
def test_an_excerpt_is_at_most_ten_decibels_quieter_than_its_recording(decibels: float) -> None:
    ratio = 10 ** (decibels / 10)
    power = np.ones((2000, 4), np.float32)
    power[1000:] = ratio / (2 - ratio)  # relative to the mean of both halves: ratio
    assert 10 * math.log10(power[-1, 0] / power[:, 0].mean()) == pytest.approx(decibels, abs=0.01)
    found = [bands().excerpt(np.log(power), 50, rng(seed)) for seed in range(60)]
    assert any(one.max() < -0.1 for one in found) == (decibels > -10)


@pytest.mark.parametrize("settings", [{"gain": -1.0}, {"tempo": 1.0}, {"time_mask": 1.5}])
def test_settings_out_of_range_are_named(settings: dict[str, float]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(ConfigError, match=rf"augment\.{name}.*{value}"):
        bands(**settings)
