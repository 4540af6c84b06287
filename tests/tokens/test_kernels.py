from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from spaudio.tokens.kernels import gammatone, initial_kernels, mel_triangles
from spaudio.tokens.scales import hz_to_erb_rate, mel_edges

RATE, TAPS, FILTERS = 16000, 400, 40


def peaks(kernels: np.ndarray) -> np.ndarray:
    size = 1 << 16
    return np.abs(np.fft.rfft(kernels, size)).argmax(axis=1) * RATE / size


def test_gammatone_centres_are_equally_spaced_in_erb_rate() -> None:
    found = hz_to_erb_rate(peaks(gammatone(FILTERS, TAPS, RATE, 50, 8000)))
    edges = hz_to_erb_rate([50, 8000])
    expected = np.linspace(*edges, FILTERS + 2)[1:-1]
    step = expected[1] - expected[0]
    np.testing.assert_allclose(found, expected, atol=0.2 * step)


def test_gammatone_has_the_bandwidth_of_its_ear() -> None:
    # The 3 dB bandwidth of a fourth-order gammatone is 0.887 ERB (Patterson et al.'s 1.019 times
    # 2 sqrt(2^(1/4) - 1)).
    size = 1 << 16
    power = np.abs(np.fft.rfft(gammatone(FILTERS, TAPS, RATE, 50, 8000), size)) ** 2
    for row in power[20:35]:
        centre = row.argmax() * RATE / size
        width = (row > row.max() / 2).sum() * RATE / size
        assert width == pytest.approx(0.887 * 24.7 * (4.37e-3 * centre + 1), rel=0.03)


def test_gammatone_starts_with_the_sound() -> None:
    # `conv1d` does not flip its kernels, so a causal response is reversed in time.
    energy = gammatone(FILTERS, TAPS, RATE, 50, 8000)[30] ** 2
    assert energy[-80:].sum() > 0.99 * energy.sum()


def test_mel_kernels_have_the_triangles_of_a_mel_spectrogram() -> None:
    kernels = mel_triangles(FILTERS, 4 * TAPS, RATE, 0, 8000)
    # The middle one of an even number of taps has no partner on its left.
    np.testing.assert_allclose(kernels[:, 1:], kernels[:, :0:-1], atol=1e-12)
    triangles = librosa.filters.mel(sr=RATE, n_fft=1 << 13, n_mels=FILTERS, norm=None)
    power = np.abs(np.fft.rfft(kernels, 1 << 13)) ** 2
    np.testing.assert_allclose(power, triangles, atol=0.06)  # cut off, a corner is rounded


def test_mel_centres() -> None:
    found = peaks(mel_triangles(FILTERS, TAPS, RATE, 50, 8000))
    edges = mel_edges(FILTERS, 50, 8000)
    assert (np.abs(found - edges[1:-1]) < 0.2 * np.diff(edges)[:-1]).all()


@pytest.mark.parametrize(
    ("init", "taps"), [("random", 200), ("gammatone", 1), ("gammatone", 7), ("mel", 1), ("mel", 7)]
)
def test_kernels_are_finite_and_of_unit_energy(init: str, taps: int) -> None:
    kernels = initial_kernels(init, 5, taps, RATE, 0.0, 8000.0)
    assert kernels.shape == (5, taps)
    torch.testing.assert_close(kernels.square().sum(dim=1), torch.ones(5))
