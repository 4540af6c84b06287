"""PCEN against librosa and scipy, and that it is causal."""

from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from scipy.signal import lfilter, lfilter_zi

from spaudio.errors import ConfigError
from spaudio.tokens.config import PcenConfig, SpectrogramConfig, TokenConfig
from spaudio.tokens.pcen import Pcen

SPECTROGRAM = SpectrogramConfig(20, scaling="pcen")


def energies(frames: int) -> np.ndarray:
    """Noise with onsets and long silences, over many orders of magnitude."""
    rng = np.random.default_rng(frames)
    level = np.exp(4 * rng.standard_normal((frames, 1)))
    found = level * rng.chisquare(2, (frames, 20))
    found[frames // 3 : frames // 2] = 0
    found[0] *= 1e4
    return found


@pytest.mark.parametrize("frames", [1, 2, 7, 100, 3000])
@pytest.mark.parametrize(
    "settings", [PcenConfig(), PcenConfig(0.8, 10.0, 0.25, 0.06, 1e-4), PcenConfig(1, 1, 1, 2.0)]
)
def test_equals_librosa(settings: PcenConfig, frames: int) -> None:
    config = TokenConfig(8000, spectrogram=replace(SPECTROGRAM, pcen=settings))
    power = energies(frames)
    ours = Pcen(config)
    log = torch.from_numpy(np.log(power + config.spectrogram.log_offset))
    s = ours.smoothing
    start = lfilter_zi([s], [1, s - 1]) * power[:1]
    expected = librosa.pcen(
        power.T, sr=8000, hop_length=config.hop_samples, gain=settings.gain, bias=settings.bias,
        power=settings.power, time_constant=settings.time_constant, eps=settings.eps, zi=start.T,
    ).T  # fmt: skip
    np.testing.assert_allclose(ours(log), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours(log.float()), expected, rtol=2e-3, atol=2e-3)
    smooth = lfilter([s], [1, s - 1], power, axis=0, zi=start)[0]
    np.testing.assert_allclose(ours.smooth(torch.from_numpy(power)), smooth, rtol=1e-6, atol=1e-4)


def test_a_frame_depends_on_the_frames_up_to_it_alone() -> None:
    pcen = Pcen(TokenConfig(8000, spectrogram=SPECTROGRAM))
    log = torch.from_numpy(np.log(energies(500) + 1e-6)).float()
    whole = pcen(log)
    for frames in (1, 2, 33, 128, 499):
        # Vectorised and scalar instructions round the powers differently.
        torch.testing.assert_close(pcen(log[:frames]), whole[:frames], rtol=1e-6, atol=1e-6)
    batch = torch.stack([log, log.roll(7, dims=0)])
    torch.testing.assert_close(pcen(batch)[0], whole, rtol=1e-6, atol=1e-6)


def test_level_is_taken_out_by_a_gain_of_one() -> None:
    settings = PcenConfig(gain=1.0, eps=1e-30)
    pcen = Pcen(TokenConfig(8000, spectrogram=replace(SPECTROGRAM, pcen=settings)))
    power = torch.from_numpy(np.random.default_rng(0).chisquare(2, (200, 20)))
    offset = SPECTROGRAM.log_offset
    soft, loud = (pcen((factor * power + offset).log()) for factor in (0.1, 10.0))
    torch.testing.assert_close(soft, loud, rtol=1e-6, atol=1e-6)
    assert soft.std() > 0.1


def test_settings_out_of_range_are_named() -> None:
    for name in ("gain", "bias", "power", "time_constant", "eps"):
        with pytest.raises(ConfigError, match=rf"tokens\.spectrogram\.pcen\.{name} must be pos"):
            PcenConfig(**{name: 0.0})
    with pytest.raises(ConfigError, match=r"time_constant must be from 1e-4 to 60 s; got 61"):
        PcenConfig(time_constant=61)
    with pytest.raises(ConfigError, match=r"scaling must be one of .*'pcen'.*got 'db'"):
        SpectrogramConfig(scaling="db")
