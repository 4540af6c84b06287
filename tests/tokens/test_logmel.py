from __future__ import annotations

import sys

import librosa
import numpy as np
import pytest
import torch

from spaudio.errors import ConfigError
from spaudio.tokens.config import SpectrogramConfig, TokenConfig
from spaudio.tokens.logmel import LogMel


def sweep(rate: int, seconds: float, seed: int = 0) -> np.ndarray:
    time = np.arange(round(rate * seconds)) / rate
    rng = np.random.default_rng(seed)
    chirp = np.sin(2 * np.pi * (100 + 0.2 * rate * time) * time)
    return (0.3 * chirp + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "n_mels", "window", "f_min", "f_max"),
    [(8000, 40, 0.025, 0.0, None), (44100, 80, 0.04, 20.0, 7000.0)],
)
def test_equals_librosa(
    rate: int, n_mels: int, window: float, f_min: float, f_max: float | None
) -> None:
    config = TokenConfig(
        rate, window=window, f_min=f_min, f_max=f_max, spectrogram=SpectrogramConfig(n_mels)
    )
    front_end = LogMel(config)
    wave = sweep(rate, 0.7)
    power = librosa.feature.melspectrogram(
        y=wave,
        sr=rate,
        n_fft=front_end.spectrogram.n_fft,
        hop_length=config.hop_samples,
        win_length=config.window_samples,
        n_mels=n_mels,
        fmin=f_min,
        fmax=f_max,
    )
    expected = np.log(power + config.spectrogram.log_offset).T
    ours = front_end(torch.from_numpy(wave)).numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 79, 80, 81])
def test_frames_follow_the_documented_count(samples: int) -> None:
    front_end = LogMel(TokenConfig(8000))
    frames = front_end(torch.zeros(samples))
    assert frames.shape == (1 + samples // 80, 64)
    assert torch.allclose(frames, torch.tensor(1e-6).log())  # digital silence: log_offset


def test_frame_is_centred_on_its_hop() -> None:
    wave = torch.zeros(8000)
    wave[80 * 30] = 1.0
    energy = LogMel(TokenConfig(8000))(wave).exp().sum(dim=1)
    assert energy.argmax() == 30


def test_a_torchaudio_that_does_not_match_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(ConfigError, match=r"beside torch .*requirements\.lock"):
        LogMel(TokenConfig(8000))
