"""Normalisation of log-mel bands or of a waveform's level, by the training split or per clip.

The same code serves a NumPy array of one clip and a padded torch batch; they differ only in the
function that takes the mean over a clip, which the caller passes.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from spaudio.errors import ConfigError
from spaudio.tokens.config import Frames
from spaudio.tokens.pauses import Pauses

# A constant band, such as one above the audio's bandwidth, must not be amplified into noise.
LEAST_VARIANCE = 1e-4
LEAST_RMS = 1e-4  # -80 dB relative to full scale; dither must not be amplified either


def frame_mean(frames: Frames) -> npt.NDArray[np.float32]:
    """Returns the mean of each band over the frames (frames, n_mels) of one clip."""
    return np.asarray(frames.mean(axis=0))


def mean_square(samples: Frames) -> float:
    """Returns the mean square of the samples of one clip, of any shape."""
    return float(np.square(samples, dtype=np.float64).mean())


@dataclass(frozen=True)
class BandNormaliser:
    """Maps log-mel frames to about zero mean and unit variance in each band.

    Args:
        mode: ``"global"`` or ``"clip_level"``; see :class:`spaudio.tokens.config.TokenConfig`.
        mean: (n_mels,), of the training split; with ``clip_level``, after the subtraction of each
            clip's level.
        std: (n_mels,), standard deviation of the same values.
        pauses: Those of the training clips; None if pauses are not cut.
        quietest: Level to which quieter clips are amplified (:mod:`spaudio.tokens.quiet_clips`);
            None if they are not.
    """

    mode: str
    mean: Any
    std: Any
    pauses: Pauses | None = None
    quietest: float | None = None

    @classmethod
    def fit(cls, mode: str, training_clips: Iterable[Frames]) -> Self:
        """Fits to the frames (frames, n_mels) of each clip of the training split.

        Raises:
            ConfigError: If there is no clip.
        """
        count, total, squares = 0, None, None
        for frames in training_clips:
            values = centred(mode, frames.astype(np.float64))
            count += len(values)
            total = values.sum(axis=0) + (0 if total is None else total)
            squares = (values**2).sum(axis=0) + (0 if squares is None else squares)
        if total is None or squares is None:
            raise ConfigError("normalisation needs at least one training clip; got none")
        mean = total / count
        variance = squares / count - mean**2
        std = np.where(variance < LEAST_VARIANCE, 1.0, np.sqrt(np.maximum(variance, 0)))
        return cls(mode, mean.astype(np.float32), std.astype(np.float32))

    def __call__(self, frames: Any, average: Callable[[Any], Any] = frame_mean) -> Any:
        """Normalises frames (..., frames, n_mels), of one clip or of a batch.

        Args:
            frames: NumPy array or torch tensor.
            average: Mean over the frames of each clip, broadcastable to ``frames``.
        """
        return (centred(self.mode, frames, average) - self.mean) / self.std


def centred(mode: str, frames: Any, average: Callable[[Any], Any] = frame_mean) -> Any:
    """With ``clip_level``, subtracts the level of a clip: its spectrum is kept.

    The level, in nats, is the mean over the bands of the logarithm of each band's mean power. Power
    is averaged over time, not its logarithm, so that the level hardly depends on how long and how
    quiet the pauses are; and logarithms over the bands, so that no single band decides it.

    Args:
        mode: As in :class:`BandNormaliser`.
        frames: Log-mel frames (..., frames, n_mels), a NumPy array or a torch tensor.
        average: As in :meth:`BandNormaliser.__call__`.
    """
    if mode == "global":
        return frames
    if isinstance(frames, torch.Tensor):
        return frames - average(frames.exp()).log().mean(dim=-1, keepdim=True)
    return frames - np.log(average(np.exp(frames))).mean(axis=-1, keepdims=True)


@dataclass(frozen=True)
class LevelNormaliser:
    """Maps waveforms to a root mean square of about 1.

    ``global`` divides by the training split's root mean square, ``clip_level`` by each clip's own.
    The learned front-end then normalises its own bands, by the training split.

    Args:
        mode: ``"global"`` or ``"clip_level"``.
        rms: Root mean square of the training split.
    """

    mode: str
    rms: float

    @classmethod
    def fit(cls, mode: str, training_clips: Iterable[Frames]) -> Self:
        """Fits to the samples, of any shape, of each clip of the training split.

        Raises:
            ConfigError: If there is no clip.
        """
        count, squares = 0, 0.0
        for samples in training_clips:
            count += samples.size
            squares += float(np.square(samples, dtype=np.float64).sum())
        if not count:
            raise ConfigError("normalisation needs at least one training clip; got none")
        return cls(mode, max(math.sqrt(squares / count), LEAST_RMS))

    def __call__(self, samples: Any, power: Callable[[Any], Any] = mean_square) -> Any:
        """Normalises samples, of one clip or of a batch.

        Args:
            samples: NumPy array or torch tensor.
            power: Mean square of each clip, broadcastable to ``samples``.
        """
        if self.mode == "global":
            return samples / self.rms
        found = power(samples)
        if isinstance(found, float):
            return samples / max(math.sqrt(found), LEAST_RMS)
        return samples / found.sqrt().clip(min=LEAST_RMS)


Normaliser = BandNormaliser | LevelNormaliser
