"""Log-mel frames from waveforms: the spectrogram front-end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.tokens.frame_settings import check_band, check_lengths, check_positive


@dataclass(frozen=True)
class LogMelConfig:
    """Settings of the log-mel front-end; every one of them is part of the feature cache's key.

    Args:
        sample_rate: Of the waveforms that come in, in Hz.
        window: Length of the Hann window, in seconds.
        hop: From one frame to the next, in seconds.
        n_mels: Number of mel bands.
        f_min: Lower edge of the lowest band, in Hz.
        f_max: Upper edge of the highest band, in Hz; None is half of the sample rate.
        floor: Added to the mel power before the logarithm, so that digital silence stays finite.

    Raises:
        ConfigError: If a value is out of range.
    """

    sample_rate: int
    window: float = 0.025
    hop: float = 0.010
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float | None = None
    floor: float = 1e-6

    def __post_init__(self) -> None:
        positive = ("sample_rate", "window", "hop", "n_mels", "floor")
        check_positive({name: getattr(self, name) for name in positive})
        check_lengths({"window": self.window, "hop": self.hop}, self.sample_rate)
        check_band(self.f_min, self.f_max, self.sample_rate)

    @property
    def window_samples(self) -> int:
        """Length of the window, in samples."""
        return round(self.window * self.sample_rate)

    @property
    def hop_samples(self) -> int:
        """Distance between frames, in samples."""
        return round(self.hop * self.sample_rate)

    @property
    def n_fft(self) -> int:
        """Length of the Fourier transform, in samples: the next power of two."""
        return int(1 << (self.window_samples - 1).bit_length())


class LogMel(nn.Module):
    """Waveform to log-mel frames, with torchaudio's mel spectrogram.

    Slaney-style mel scale and area normalisation with centred frames and zero padding, which are
    librosa's defaults, so that ``log(librosa.feature.melspectrogram(...) + floor)`` is equal to
    float tolerance (tested).

    Args:
        config: The settings.

    Raises:
        ConfigError: If torchaudio cannot be imported beside this torch.
    """

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrogram = _torchaudio().transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.window_samples,
            hop_length=config.hop_samples,
            f_min=config.f_min,
            f_max=config.f_max,
            n_mels=config.n_mels,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """Transforms waveforms.

        Args:
            waveform: (..., samples), float, at ``config.sample_rate`` Hz.

        Returns:
            Natural logarithm of mel power (..., frames, n_mels), where
            frames = 1 + samples // hop_samples; frame i is centred on sample i * hop_samples.
        """
        power: Tensor = self.spectrogram(waveform)
        return torch.log(power + self.config.floor).transpose(-1, -2)


def _torchaudio() -> Any:
    """Imports torchaudio, or says in one line why it cannot be and what to do.

    torchaudio holds compiled code for one CUDA runtime; beside a torch that was built for another
    one its import fails with an OSError or RuntimeError deep inside the loader.
    """
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"torchaudio cannot be imported beside torch {torch.__version__} ({error}). Install a "
            "pair that matches, as requirements.lock has it: `pip install -r requirements.lock`"
        ) from error
    return torchaudio
