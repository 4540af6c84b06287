"""Normalisation by the training split or by each clip: log-mel frames, a waveform's level."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spaudio.errors import ConfigError

Frames = npt.NDArray[np.float32]
# A band that never moves (e.g. above the audio's band limit) must not be blown up to noise.
LEAST_VARIANCE = 1e-4
LEAST_RMS = 1e-4  # -80 dB below full scale: a clip of dither must not be blown up either
MODES = ("global", "clip", "clip_std")


@dataclass(frozen=True)
class Normaliser:
    """Maps log-mel frames to about zero mean and unit variance.

    ``global`` subtracts the training split's mean of each band. ``clip`` subtracts each clip's own
    mean of each band instead (cepstral mean subtraction: it removes the channel, the loudness and
    part of the speaker). Both divide by the training split's standard deviation of what is left.
    ``clip_std`` divides by each clip's own standard deviation of each band instead.

    Args:
        mode: ``"global"``, ``"clip"`` or ``"clip_std"``.
        mean: (n_mels,), the training split's; not used by ``clip``.
        std: (n_mels,), the training split's.
    """

    mode: str
    mean: Frames
    std: Frames

    @classmethod
    def fit(cls, mode: str, training_clips: Iterable[Frames]) -> Normaliser:
        """Measures mean and standard deviation on the training split, frame by frame.

        Args:
            mode: ``"global"``, ``"clip"`` or ``"clip_std"``.
            training_clips: Frames (frames, n_mels) of each clip of the training split only.

        Returns:
            The normaliser.

        Raises:
            ConfigError: If the mode is unknown or there is no clip.
        """
        check_mode(mode)
        count, total, squares = 0, None, None
        for frames in training_clips:
            values = frames.astype(np.float64)
            if mode != "global":
                values = values - values.mean(axis=0)
            count += len(values)
            total = values.sum(axis=0) + (0 if total is None else total)
            squares = (values**2).sum(axis=0) + (0 if squares is None else squares)
        if total is None or squares is None:
            raise ConfigError("normalisation needs at least one training clip; got none")
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, LEAST_VARIANCE))
        return cls(mode, mean.astype(np.float32), std.astype(np.float32))

    def __call__(self, frames: Frames) -> Frames:
        """Normalises the frames (frames, n_mels) of one clip."""
        mean = self.mean if self.mode == "global" else frames.mean(axis=0)
        std = self.std
        if self.mode == "clip_std":
            std = np.sqrt(np.maximum(frames.var(axis=0), LEAST_VARIANCE))
        return ((frames - mean) / std).astype(np.float32, copy=False)


@dataclass(frozen=True)
class LevelNormaliser:
    """Maps waveforms to a root mean square of about 1.

    ``global`` divides by the training split's root mean square, the other modes by each clip's
    own. What the mode says of the bands is done by the front-end, which computes them.

    Args:
        mode: ``"global"``, ``"clip"`` or ``"clip_std"``.
        rms: The training split's.
    """

    mode: str
    rms: float

    @classmethod
    def fit(cls, mode: str, training_clips: Iterable[Frames]) -> LevelNormaliser:
        """Measures the level of the training split.

        Args:
            mode: ``"global"``, ``"clip"`` or ``"clip_std"``.
            training_clips: Samples, of any shape, of each clip of the training split only.

        Raises:
            ConfigError: If the mode is unknown or there is no clip.
        """
        check_mode(mode)
        count, squares = 0, 0.0
        for samples in training_clips:
            count += samples.size
            squares += float(np.square(samples, dtype=np.float64).sum())
        if not count:
            raise ConfigError("normalisation needs at least one training clip; got none")
        return cls(mode, max(math.sqrt(squares / count), LEAST_RMS))

    def __call__(self, samples: Frames) -> Frames:
        """Normalises the samples of one clip, of any shape."""
        rms = self.rms
        if self.mode != "global":
            rms = max(math.sqrt(np.square(samples, dtype=np.float64).mean()), LEAST_RMS)
        return (samples / np.float32(rms)).astype(np.float32, copy=False)


def check_mode(mode: str) -> str:
    """Returns the mode of a normalisation.

    Raises:
        ConfigError: If it is unknown.
    """
    if mode not in MODES:
        raise ConfigError(f"tokens.normalise must be one of {MODES}; got {mode!r}")
    return mode
