"""Frequency scales, and the initial kernels that are spaced in them."""

import librosa
import numpy as np
import pytest
import torch

from spaudio.errors import ConfigError
from spaudio.tokens import scales
from spaudio.tokens.kernels import gammatone, initial_kernels, mel_triangles

RATE, TAPS, FILTERS = 16000, 400, 40
HZ = np.linspace(0, 20_000, 301)


def test_mel_is_librosas() -> None:
    np.testing.assert_allclose(scales.hz_to_mel(HZ), librosa.hz_to_mel(HZ), rtol=1e-12)
    expected = librosa.mel_frequencies(22, fmin=50, fmax=7000)
    np.testing.assert_allclose(scales.mel_edges(20, 50, 7000), expected)


def test_a_step_of_erb_rate_is_one_bandwidth() -> None:
    rate = scales.hz_to_erb_rate(HZ)
    np.testing.assert_allclose(scales.erb_rate_to_hz(rate), HZ, atol=1e-8)
    np.testing.assert_allclose(np.gradient(rate, HZ)[1:-1], 1 / scales.erb(HZ[1:-1]), rtol=0.1)
    # Glasberg & Moore's own form of the scale, whose 21.4 is rounded.
    np.testing.assert_allclose(rate, 21.4 * np.log10(4.37e-3 * HZ + 1), rtol=4e-3)


def test_gammatone_has_the_centres_and_bandwidths_of_the_ear() -> None:
    size = 1 << 16
    kernels = gammatone(FILTERS, TAPS, RATE, 50, 8000)
    power = np.abs(np.fft.rfft(kernels, size)) ** 2
    centres = power.argmax(axis=1) * RATE / size
    lower, upper = scales.hz_to_erb_rate([50, 8000])
    expected = np.linspace(lower, upper, FILTERS + 2)[1:-1]
    step = expected[1] - expected[0]
    np.testing.assert_allclose(scales.hz_to_erb_rate(centres), expected, atol=0.2 * step)
    # The 3 dB bandwidth of a fourth-order gammatone is 0.887 ERB (Patterson et al.'s 1.019 times
    # 2 sqrt(2^(1/4) - 1)).
    for row, centre in zip(power[20:35], centres[20:35], strict=True):
        width = (row > row.max() / 2).sum() * RATE / size
        assert width == pytest.approx(0.887 * 24.7 * (4.37e-3 * centre + 1), rel=0.03)
    # `conv1d` does not flip its kernels, so a causal response is reversed in time.
    energy = kernels[30] ** 2
    assert energy[-80:].sum() > 0.99 * energy.sum()


def test_mel_kernels_have_the_triangles_of_a_mel_spectrogram() -> None:
    kernels = mel_triangles(FILTERS, 4 * TAPS, RATE, 0, 8000)
    # The middle one of an even number of taps has no partner on its left.
    np.testing.assert_allclose(kernels[:, 1:], kernels[:, :0:-1], atol=1e-12)
    triangles = librosa.filters.mel(sr=RATE, n_fft=1 << 13, n_mels=FILTERS, norm=None)
    power = np.abs(np.fft.rfft(kernels, 1 << 13)) ** 2
    np.testing.assert_allclose(power, triangles, atol=0.06)  # cut off, a corner is rounded


@pytest.mark.parametrize(
    ("init", "taps"), [("random", 200), ("gammatone", 1), ("gammatone", 7), ("mel", 1), ("mel", 7)]
)
def test_kernels_are_finite_and_of_unit_energy(init: str, taps: int) -> None:
    kernels = initial_kernels(init, 5, taps, RATE, 0.0, 8000.0)
    assert kernels.shape == (5, taps)
    torch.testing.assert_close(kernels.square().sum(dim=1), torch.ones(5))


def test_mel_triangles_too_narrow_for_their_kernels_are_named() -> None:
    with pytest.raises(ConfigError, match=r"too narrow for kernels of 20 taps.*waveform\.kernel"):
        initial_kernels("mel", 40, 20, 2000, 10, 100)
    assert initial_kernels("mel", 40, 1000, 2000, 10, 100).isfinite().all()
