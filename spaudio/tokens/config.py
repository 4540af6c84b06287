"""Settings of the token front-ends: how waveforms become tokens."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spaudio.errors import ConfigError
from spaudio.tokens.kernels import INITS

Frames = npt.NDArray[np.float32]  # (frames, features) of one clip, or its tokens

FRONT_ENDS = ("spectrogram", "waveform", "pretrained")
NORMALISATIONS = ("global", "clip_level")
FRAME_POOLINGS = ("mean", "max")
STEMS = ("none", "conv")
SCALINGS = ("log", "pcen")


@dataclass
class PcenConfig:
    """Settings of :class:`spaudio.tokens.pcen.Pcen`, by default those of librosa.

    Args:
        gain: Exponent of the smoothed energy; 1 removes the level.
        bias: Added before the compression.
        power: Exponent of the compression.
        time_constant: Time constant of the smoother, in seconds.
        eps: Added to the smoothed energy.

    Raises:
        ConfigError: If a value is out of range.
    """

    gain: float = 0.98
    bias: float = 2.0
    power: float = 0.5
    time_constant: float = 0.4
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _check_positive("tokens.spectrogram.pcen", **vars(self))
        if not 1e-4 <= self.time_constant <= 60:
            raise ConfigError(
                "tokens.spectrogram.pcen.time_constant must be from 1e-4 to 60 s; got "
                f"{self.time_constant}"
            )


@dataclass
class SpectrogramConfig:
    """Settings of the mel front-end only.

    Args:
        n_mels: Number of mel bands.
        log_offset: Added to the mel power before the logarithm, so that silence stays finite.
        top_db: Values more than this many decibels below the largest one of the clip are raised to
            this limit, as by ``librosa.power_to_db``: recordings then differ less in the level of
            their background noise. Applied after augmentation, and not to ``"pcen"``. 0 sets no
            limit.
        scaling: ``"log"`` takes log-mel frames as they are, ``"pcen"`` turns them into
            per-channel normalised energies. Log-mel frames are cached and augmented in both cases.
        pcen: Settings of ``"pcen"``.

    Raises:
        ConfigError: If a value is out of range.
    """

    n_mels: int = 64
    log_offset: float = 1e-6
    top_db: float = 0.0
    scaling: str = "log"
    pcen: PcenConfig = field(default_factory=PcenConfig)

    def __post_init__(self) -> None:
        _check_positive("tokens.spectrogram", n_mels=self.n_mels, log_offset=self.log_offset)
        if self.top_db < 0:
            raise ConfigError(
                f"tokens.spectrogram.top_db must not be negative; got {self.top_db} (0: no limit)"
            )
        _check_choice("tokens.spectrogram.scaling", self.scaling, SCALINGS)


@dataclass
class WaveformConfig:
    """Settings of the learned waveform front-end only.

    Args:
        num_filters: Number of filters.
        kernel: Length of a filter, in seconds.
        stride: Step between computed filter outputs, in samples; must divide the hop. None takes
            the largest divisor up to 4; a stride of 4 costs a quarter. A steady tone at a multiple
            of half the strided rate (2 kHz at 16 kHz) is then sampled at only a few phases.
        pooling: ``"mean"`` or, as in Sainath et al. 2015, ``"max"``.
        init: Initial kernels: ``"random"``, ``"gammatone"`` or ``"mel"``.
        log_offset: Added before the logarithm, so that silence and its gradient stay finite.
            Waveforms have a root mean square of about 1.

    Raises:
        ConfigError: If a value is out of range.
    """

    num_filters: int = 40
    kernel: float = 0.025
    stride: int | None = None
    pooling: str = "mean"
    init: str = "gammatone"
    log_offset: float = 0.01

    def __post_init__(self) -> None:
        sizes = {"num_filters": self.num_filters, "kernel": self.kernel}
        _check_positive("tokens.waveform", **sizes, log_offset=self.log_offset)
        _check_choice("tokens.waveform.pooling", self.pooling, FRAME_POOLINGS)
        _check_choice("tokens.waveform.init", self.init, INITS)


@dataclass
class TokenConfig:
    """How tokens are made from a waveform.

    Args:
        sample_rate: Rate that audio is resampled to, in Hz.
        front_end: ``"spectrogram"`` (log-mel frames), ``"waveform"`` (a learned filterbank), or
            ``"pretrained"`` (that of a pretrained encoder, set with ``model=pretrained``).
        window: Length of a frame's window, in seconds.
        hop: Step between frames, in seconds.
        f_min: Lower edge of the lowest band, in Hz. For a learned filterbank, the value before
            training; ``tokens=waveform`` sets 50.
        f_max: Upper edge of the highest band, in Hz; None uses half the sample rate.
        stack: Frames per token.
        stem: ``"none"`` concatenates the frames of a token, ``"conv"`` passes them through
            :class:`spaudio.model.stem.ConvStem`; ``stack`` must then be a power of two.
        stem_channels: Output channels of each convolution of the stem.
        normalise: ``"global"`` subtracts the training split's mean of each band and divides by its
            standard deviation. ``"clip_level"`` first subtracts each clip's level
            (:func:`spaudio.tokens.normalise.centred`); clips that are quieter than the training
            clips are amplified before (:mod:`spaudio.tokens.quiet_clips`). For the learned
            front-end, samples are divided by the root mean square of the training split or, with
            ``"clip_level"``, of the clip. PCEN takes ``"global"`` only.
        trim: In validation, test and prediction, cuts pauses at both ends of a clip that are longer
            than in 95 % of the training clips (:mod:`spaudio.tokens.pauses`). Log-mel frames only.
        spectrogram: Settings of the mel front-end only.
        waveform: Settings of the learned front-end only.

    Raises:
        ConfigError: If a value is out of range.
    """

    sample_rate: int = 16_000
    front_end: str = "spectrogram"
    window: float = 0.025
    hop: float = 0.010
    f_min: float = 0.0
    f_max: float | None = None
    stack: int = 1
    normalise: str = "global"
    trim: bool = False
    stem: str = "none"
    stem_channels: list[int] = field(default_factory=lambda: [24, 48, 96])
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    waveform: WaveformConfig = field(default_factory=WaveformConfig)

    def __post_init__(self) -> None:
        _check_choice("tokens.front_end", self.front_end, FRONT_ENDS)
        _check_choice("tokens.normalise", self.normalise, NORMALISATIONS)
        _check_choice("tokens.stem", self.stem, STEMS)
        sizes = {"sample_rate": self.sample_rate, "window": self.window, "hop": self.hop}
        _check_positive("tokens", **sizes, stack=self.stack)
        pcen = self.front_end == "spectrogram" and self.spectrogram.scaling == "pcen"
        if pcen and self.normalise == "clip_level":
            raise ConfigError(
                "tokens.normalise=clip_level needs log-mel frames; with "
                "tokens.spectrogram.scaling=pcen, give tokens=spectrogram (normalise=global)"
            )
        if self.trim and self.front_end != "spectrogram":
            raise ConfigError(
                f"tokens.trim=true needs log-mel frames, not tokens.front_end={self.front_end}; "
                "give tokens.trim=false"
            )
        lengths = {"window": self.window, "hop": self.hop}
        if self.learned:
            lengths["waveform.kernel"] = self.waveform.kernel
        for name, seconds in lengths.items():
            if round(seconds * self.sample_rate) < 1:
                raise ConfigError(
                    f"tokens.{name}={seconds} s is less than one sample at {self.sample_rate} Hz; "
                    f"give at least {1 / self.sample_rate:.6f}"
                )
        if not 0 <= self.f_min < self.top <= self.sample_rate / 2:
            raise ConfigError(
                "tokens.f_min and tokens.f_max must satisfy 0 <= f_min < f_max <= sample_rate/2 = "
                f"{self.sample_rate / 2} Hz; got {self.f_min} and {self.f_max}"
            )
        most = 1 << len(self.stem_channels)
        if self.stem == "conv" and (self.stack & (self.stack - 1) or self.stack > most):
            raise ConfigError(
                f"tokens.stem=conv needs tokens.stack to be a power of two up to {most}, as each "
                f"of its {len(self.stem_channels)} convolutions can halve the frames once; got "
                f"{self.stack}"
            )
        if min(self.stem_channels, default=0) < 1:
            raise ConfigError(f"tokens.stem_channels must be positive; got {self.stem_channels}")
        stride = self.waveform.stride
        if self.learned and stride is not None and (stride < 1 or self.hop_samples % stride):
            raise ConfigError(
                f"tokens.waveform.stride must divide the hop of {self.hop_samples} samples; got "
                f"{stride}"
            )

    @property
    def learned(self) -> bool:
        """Whether part of the front-end is trained with the model."""
        return self.front_end == "waveform"

    @property
    def top(self) -> float:
        """Upper edge of the highest band, in Hz."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    @property
    def window_samples(self) -> int:
        """Length of the window, in samples."""
        return round(self.window * self.sample_rate)

    @property
    def hop_samples(self) -> int:
        """Step between frames, in samples."""
        return round(self.hop * self.sample_rate)

    @property
    def frame_seconds(self) -> float:
        """Step between frames, in seconds, after rounding to whole samples."""
        return self.hop_samples / self.sample_rate

    @property
    def token_seconds(self) -> float:
        """Step between tokens, in seconds."""
        return self.stack * self.frame_seconds

    @property
    def token_samples(self) -> int:
        """Step between tokens, in samples."""
        return self.stack * self.hop_samples

    @property
    def bands(self) -> int:
        """Values per frame that the model projects; a placeholder of 1 for pretrained encoders."""
        if self.front_end == "pretrained":
            return 1
        return self.waveform.num_filters if self.learned else self.spectrogram.n_mels

    @property
    def features(self) -> int:
        """Width of a token that the model projects."""
        return self.stack * self.bands

    @property
    def taps(self) -> int:
        """Length of a learned filter, in samples."""
        return round(self.waveform.kernel * self.sample_rate)

    @property
    def stride_samples(self) -> int:
        """Step between computed outputs of the learned filters, in samples."""
        if self.waveform.stride is not None:
            return self.waveform.stride
        return max(s for s in range(1, 5) if self.hop_samples % s == 0)

    @property
    def outputs_per_frame(self) -> int:
        """Outputs of a learned filter that are pooled into one frame."""
        return max(1, self.window_samples // self.stride_samples)

    @property
    def fft_samples(self) -> int:
        """Size of the Fourier transform of a window: the next power of two."""
        return 1 << (self.window_samples - 1).bit_length()

    @property
    def frame_reach(self) -> int:
        """The most samples before and after its centre that a frame depends on."""
        if self.learned:
            return self.outputs_per_frame * self.stride_samples // 2 + self.taps // 2
        return self.fft_samples // 2


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {choices}; got {value!r}")


def _check_positive(group: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{group}.{name} must be positive and finite; got {value}")
