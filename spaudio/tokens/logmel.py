"""Log-mel frames from waveforms: the spectrogram front-end."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.tokens.config import TokenConfig


class LogMel(nn.Module):
    """Waveform to log-mel frames, with torchaudio's mel spectrogram.

    Slaney-style mel scale and area normalisation with centred frames and zero padding, as in
    librosa: ``log(librosa.feature.melspectrogram(...) + log_offset)`` is equal
    within float tolerance.

    Args:
        config: The settings; those of the learned front-end are not read.

    Raises:
        ConfigError: If torchaudio cannot be imported with this torch.
    """

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.config = config
        n_mels = config.spectrogram.n_mels
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "At least one mel filterbank has all zero values")
            self.spectrogram = _torchaudio().transforms.MelSpectrogram(
                sample_rate=config.sample_rate,
                n_fft=config.fft_samples,
                win_length=config.window_samples,
                hop_length=config.hop_samples,
                f_min=config.f_min,
                f_max=config.f_max,
                n_mels=n_mels,
                norm="slaney",
                mel_scale="slaney",
                pad_mode="constant",
            )
        #: Number of bands so narrow that no frequency of the spectrum lies in them.
        self.empty = n_mels - int(self.spectrogram.mel_scale.fb.any(dim=0).sum())

    def forward(self, waveform: Tensor) -> Tensor:
        """Transforms waveforms.

        Args:
            waveform: (..., samples), float, at ``config.sample_rate`` Hz.

        Returns:
            Natural logarithm of mel power (..., frames, n_mels), where
            frames = 1 + samples // hop_samples; frame i is centred on sample i * hop_samples.
        """
        power: Tensor = self.spectrogram(waveform)
        return torch.log(power + self.config.spectrogram.log_offset).transpose(-1, -2)


def power_of(log_mel: Tensor, log_offset: float) -> Tensor:
    """Returns the mel power of log-mel frames, without the offset of their logarithm."""
    return (log_mel.exp() - log_offset).clamp(min=0)


def _torchaudio() -> Any:
    """Imports torchaudio; a failure becomes a one-line error with a remedy.

    torchaudio is compiled for one CUDA runtime. With a torch built for another, its import raises
    an OSError or RuntimeError.
    """
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"torchaudio cannot be imported with torch {torch.__version__} ({error}). Install a "
            "matching pair, such as that of requirements.lock: `pip install -r requirements.lock`"
        ) from error
    return torchaudio
