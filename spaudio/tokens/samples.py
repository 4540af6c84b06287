"""Settings of the waveform front-end, and the samples that it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spaudio.errors import ConfigError
from spaudio.tokens.frame_settings import check_band, check_lengths, check_positive
from spaudio.tokens.kernels import INITS

POOLINGS = ("mean", "max")
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WaveformFrames:
    """What the feature cache holds for this front-end: samples, cut into hops.

    Args:
        sample_rate: In Hz.
        hop: In seconds.
    """

    sample_rate: int
    hop: float

    @property
    def hop_samples(self) -> int:
        """Samples a hop."""
        return round(self.hop * self.sample_rate)


@dataclass(frozen=True)
class WaveformConfig:
    """Settings of the waveform front-end.

    Args:
        sample_rate: Of the waveforms that come in, in Hz.
        window: What is pooled into a frame, in seconds of filter output.
        hop: From one frame to the next, in seconds.
        num_filters: Number of filters.
        kernel: Length of a filter, in seconds.
        stride: From one computed filter output to the next, in samples; it divides the hop. None
            takes the largest divisor up to 4, a quarter of the cost: what is pooled needs no
            sample-exact envelope, but a steady tone at a multiple of half of the strided rate
            (at 16 kHz: of 2 kHz) is rectified at a few phases only.
        pooling: ``"mean"`` or, as in Sainath et al., ``"max"``.
        init: ``"random"``, ``"gammatone"`` or ``"mel"``; all are trained from there.
        f_min: Lower edge of the lowest band that ``init`` makes, in Hz.
        f_max: Upper edge of the highest one, in Hz; None is half of the sample rate.
        offset: Added before the logarithm, so that silence and its gradient stay finite; waveforms
            come in at a root mean square of about 1.

    Raises:
        ConfigError: If a value is out of range.
    """

    sample_rate: int
    window: float = 0.025
    hop: float = 0.010
    num_filters: int = 40
    kernel: float = 0.025
    stride: int | None = None
    pooling: str = "mean"
    init: str = "gammatone"
    f_min: float = 50.0
    f_max: float | None = None
    offset: float = 0.01

    def __post_init__(self) -> None:
        positive = ("sample_rate", "window", "hop", "num_filters", "kernel", "offset")
        check_positive({name: getattr(self, name) for name in positive})
        lengths = {"hop": self.hop, "window": self.window, "kernel": self.kernel}
        check_lengths(lengths, self.sample_rate)
        check_band(self.f_min, self.f_max, self.sample_rate)
        if self.stride is not None and (self.stride < 1 or self.hop_samples % self.stride):
            raise ConfigError(
                f"tokens.stride must divide the hop of {self.hop_samples} samples; got "
                f"{self.stride}"
            )
        if self.pooling not in POOLINGS:
            raise ConfigError(f"tokens.pooling must be one of {POOLINGS}; got {self.pooling!r}")
        if self.init not in INITS:
            raise ConfigError(f"tokens.init must be one of {INITS}; got {self.init!r}")

    @property
    def top(self) -> float:
        """Upper edge of the highest band, in Hz."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    @property
    def hop_samples(self) -> int:
        """Samples a hop."""
        return self.cached.hop_samples

    @property
    def window_samples(self) -> int:
        """Samples a window, before it is cut to whole strides."""
        return round(self.window * self.sample_rate)

    @property
    def taps(self) -> int:
        """Samples a filter."""
        return round(self.kernel * self.sample_rate)

    @property
    def stride_samples(self) -> int:
        """Samples from one computed filter output to the next."""
        if self.stride is not None:
            return self.stride
        return max(s for s in range(1, 5) if self.hop_samples % s == 0)

    @property
    def pooled(self) -> int:
        """Filter outputs that are pooled into a frame."""
        return max(1, self.window_samples // self.stride_samples)

    @property
    def cached(self) -> WaveformFrames:
        """The settings that shape what the feature cache holds."""
        return WaveformFrames(self.sample_rate, self.hop)


def cut(waveform: Samples, hop_samples: int) -> Samples:
    """Cuts a waveform into hops, without overlap.

    Args:
        waveform: (samples,).
        hop_samples: Samples a hop.

    Returns:
        (frames, hop_samples), where frames = 1 + samples // hop_samples as for log-mel frames; the
        rest of the last one is zero.
    """
    frames = 1 + len(waveform) // hop_samples
    padded = np.zeros(frames * hop_samples, dtype=np.float32)
    padded[: len(waveform)] = waveform
    return padded.reshape(frames, hop_samples)
