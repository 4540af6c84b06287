import librosa
import numpy as np
import pytest
import torch

from spaudio.errors import ConfigError
from spaudio.tokens.config import SpectrogramConfig, TokenConfig
from spaudio.tokens.logmel import LogMel
from tests.fixtures.broken import break_torchaudio


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize(
    ("config", "samples"),
    [
        (TokenConfig(8000, spectrogram=SpectrogramConfig(40)), 5600),
        (TokenConfig(44100, window=0.04, f_min=20.0, f_max=7000.0), 30870),
        (TokenConfig(8000, spectrogram=SpectrogramConfig(40)), 1),
    ],
)
def test_equals_librosa(config: TokenConfig, samples: int) -> None:
    time = np.arange(samples) / config.sample_rate
    chirp = np.sin(2 * np.pi * (100 + 0.2 * config.sample_rate * time) * time)
    noise = np.random.default_rng(0).standard_normal(samples)
    wave = (0.3 * chirp + 0.01 * noise).astype(np.float32)
    front_end = LogMel(config)
    power = librosa.feature.melspectrogram(
        y=wave,
        sr=config.sample_rate,
        n_fft=front_end.spectrogram.n_fft,
        hop_length=config.hop_samples,
        win_length=config.window_samples,
        n_mels=config.bands,
        fmin=config.f_min,
        fmax=config.f_max,
    )
    expected = np.log(power + config.spectrogram.log_offset).T
    ours = front_end(torch.from_numpy(wave)).numpy()
    assert len(ours) == 1 + samples // config.hop_samples
    np.testing.assert_allclose(ours, expected, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", [ImportError, OSError, RuntimeError])
def test_a_torchaudio_that_does_not_match_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    break_torchaudio(monkeypatch, kind)
    said = r"with torch .*undefined symbol.*requirements\.lock"
    with pytest.raises(ConfigError, match=said):
        LogMel(TokenConfig(8000))
