from __future__ import annotations

import librosa
import numpy as np
import pytest

from spaudio.tokens.scales import (
    erb,
    erb_rate_to_hz,
    hz_to_erb_rate,
    hz_to_mel,
    mel_edges,
    mel_to_hz,
)

HZ = np.linspace(0, 20_000, 301)


def test_mel_is_librosas() -> None:
    np.testing.assert_allclose(hz_to_mel(HZ), librosa.hz_to_mel(HZ), rtol=1e-12)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(HZ)), HZ, atol=1e-8)
    expected = librosa.mel_frequencies(22, fmin=50, fmax=7000)
    np.testing.assert_allclose(mel_edges(20, 50, 7000), expected)


def test_a_step_of_erb_rate_is_one_bandwidth() -> None:
    np.testing.assert_allclose(erb_rate_to_hz(hz_to_erb_rate(HZ)), HZ, atol=1e-8)
    slope = np.gradient(hz_to_erb_rate(HZ), HZ)[1:-1]
    np.testing.assert_allclose(slope, 1 / erb(HZ[1:-1]), rtol=0.1)
    # Glasberg & Moore's own form of the scale, whose 21.4 is rounded.
    np.testing.assert_allclose(hz_to_erb_rate(HZ), 21.4 * np.log10(4.37e-3 * HZ + 1), rtol=4e-3)
    assert float(erb(1000)) == pytest.approx(24.7 * 5.37)
