"""Augmentation settings, and augmentation of log-mel frames; the caller passes the generator."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from spaudio.errors import ConfigError
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.noise import BandNoise

#: An excerpt whose loudest frame is this many dB below the mean power of its clip is silent. In
#: ESC-50 this is one excerpt in sixteen, and nearly half of those of breaking glass and of sneezes.
QUIET = 10.0


@dataclass
class AugmentConfig:
    """Strength of each random variation of training clips; zero turns it off.

    Args:
        gain: Standard deviation of the level change of a clip, in nats of power.
        tilt: Standard deviation of each component of a random equalizer, in nats of power. Its
            curve over the bands is the sum of half, one and one and a half cosine periods.
        warp: Largest relative stretch of the mel axis, as from a different vocal-tract length
            (Jaitly & Hinton 2013, vocal tract length perturbation).
        tempo: Largest relative change of duration.
        time_shift: Largest shift, as a fraction of the clip; the edge frame fills the gap. Excerpts
            are not shifted, because their position is random.
        roll: Largest circular shift, as a fraction of the clip, or of an excerpt of it; with 1, it
            may start anywhere. Padding that completes the last token is added afterwards; the
            silence that completes the last hop of a waveform is moved as well.
        time_masks: SpecAugment (arXiv 1904.08779): number of masks along time.
        time_mask: Largest width of a time mask, as a fraction of the clip. A mask never hides all.
        mel_masks: SpecAugment: number of masks along the bands.
        mel_mask: Largest width of a band mask, in bands.
        noise: Largest level of added noise, as a fraction of the clip's root mean square, for
            log-mel frames within their bands. The level is uniform in dB over the 40 dB below it,
            the noise between white and brown (:mod:`spaudio.tokens.noise`).
        mixup: Fraction of the training batches in which clips are added in pairs; see
            :class:`spaudio.training.mixing.Mixing`.
        mixup_power: Whether mixup adds log-mel frames by their power, as sounds add up. Other
            frames are added by their values.
        cutmix: Fraction of the training batches in which clips exchange a span.
        mixstyle: Fraction of the training batches in which clips take on part of each other's mean
            and spread in each band; for spectrograms only.
        crop: Length, in seconds, of the random excerpt that training sees of a longer clip; 0 keeps
            clips whole. Silent excerpts are not used.
    """

    gain: float = 0.0
    tilt: float = 0.0
    warp: float = 0.0
    tempo: float = 0.0
    time_shift: float = 0.0
    roll: float = 0.0
    time_masks: int = 0
    time_mask: float = 0.0
    mel_masks: int = 0
    mel_mask: int = 0
    noise: float = 0.0
    mixup: float = 0.0
    mixup_power: bool = False
    cutmix: float = 0.0
    mixstyle: float = 0.0
    crop: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ConfigError(f"augment.{name} must not be negative; got {value}")
        for name in ("warp", "tempo", "time_shift", "time_mask"):
            if getattr(self, name) >= 1:
                raise ConfigError(f"augment.{name} must be below 1; got {getattr(self, name)}")
        if max(self.roll, self.mixstyle, self.mixup + self.cutmix) > 1:
            raise ConfigError(
                "augment.roll, augment.mixstyle, and augment.mixup and augment.cutmix together, "
                f"must be at most 1; got {self.roll}, {self.mixstyle}, {self.mixup} and "
                f"{self.cutmix}"
            )


class Augment:
    """Augments the log-mel frames of one clip.

    A stretch of the bands or of time takes the nearest band or frame. Interpolation would average
    neighbours: the training clips would be smoother than those of the evaluation. On ESC-50, this
    cost four points of validation accuracy.

    :meth:`excerpt` and :meth:`vary` act before the normalisation. :meth:`mask` acts after it, where
    zero is the mean.

    Args:
        config: The settings; those named in ``ignored`` do not apply to the frames.
        tokens: How the frames are made. Their log offset is not changed with the level, so silence
            stays silence. None, for the input of a pretrained encoder, means that there is none.
    """

    ignored: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: AugmentConfig, tokens: TokenConfig | None) -> None:
        self.config = config
        self._offset = np.float32(tokens.spectrogram.log_offset if tokens else 0)
        self._noise = BandNoise(tokens) if tokens and config.noise else None

    def excerpt(self, frames: Frames, length: int, rng: np.random.Generator) -> Frames:
        """Draws an excerpt of ``length`` frames that is not silent.

        At least one of its frames is less than ``QUIET`` decibels below the clip's mean power: an
        excerpt of the silence around a short sound would teach that silence has the clip's label.
        Unlike the loudest frame, the mean is not set by a single knock in a long recording.

        Args:
            frames: (frames, width).
            length: In frames; shorter clips are returned whole.
            rng: Source of the position, which is uniform over all such excerpts.
        """
        if len(frames) <= length:
            return frames
        levels = self._levels(frames)
        mean = math.log(np.exp(levels, dtype=np.float64).mean())
        loud = np.cumsum(levels > mean - QUIET / 10 * math.log(10))
        starts = np.flatnonzero(loud[length - 1 :] > np.append(0, loud[:-length]))
        start = int(starts[rng.integers(len(starts))])
        return frames[start : start + length]

    def _levels(self, frames: Frames) -> npt.NDArray[np.float32]:
        """Returns the level of each frame, in nats of power."""
        levels: npt.NDArray[np.float32] = frames.max(axis=1)
        return levels

    def _cut(
        self, frames: Frames, length: int, rng: np.random.Generator
    ) -> tuple[Frames, float, bool]:
        """Draws a tempo and, of a clip that would be longer than ``length`` at it, an excerpt.

        All frames of the excerpt are used: a later cut could leave only silence.

        Returns:
            The frames, the factor by which to change their number, and whether the clip is whole.
        """
        tempo = self.config.tempo
        factor = 1 + rng.uniform(-tempo, tempo) if tempo else 1.0
        most = max(1, math.floor(length / factor)) if length else len(frames)
        return self.excerpt(frames, most, rng), factor, len(frames) <= most

    def vary(self, frames: Frames, rng: np.random.Generator, length: int = 0) -> Frames:
        """Varies level, spectral tilt, mel axis, tempo, position and noise of a clip.

        Args:
            frames: (frames, n_mels).
            rng: Source of the variation.
            length: Maximum frames of the result, an excerpt that is not silent; 0 for no limit.
        """
        config = self.config
        frames, tempo, is_whole = self._cut(frames, length, rng)
        if config.gain or config.tilt:
            bands = np.linspace(0, 1, frames.shape[1], dtype=np.float32)
            curve = np.full_like(bands, rng.normal(0, config.gain) if config.gain else 0)
            if config.tilt:
                curve += tilt_curve(bands, config.tilt, rng)
            frames = self._amplify(frames, curve)
        if config.warp:
            scale = 1 + rng.uniform(-config.warp, config.warp)
            frames = self._rows(frames.T, np.arange(frames.shape[1]) * scale).T
        if config.tempo:
            count = max(1, round(len(frames) * tempo))
            frames = self._rows(frames, np.linspace(0, len(frames) - 1, count))
        if config.time_shift and is_whole:
            most = config.time_shift * len(frames)
            shift = round(rng.uniform(-most, most))
            frames = frames[np.clip(np.arange(len(frames)) - shift, 0, len(frames) - 1)]
        if config.roll:
            frames = np.roll(frames, round(rng.uniform(0, config.roll) * len(frames)), axis=0)
        if self._noise:
            frames = self._noise(frames, config.noise, rng)
        return frames.astype(np.float32, copy=False)

    def _rows(self, frames: Frames, positions: npt.NDArray[np.floating]) -> Frames:
        """Returns the rows nearest to fractional positions, which are clipped to the ends."""
        rows: Frames = frames[np.rint(np.clip(positions, 0, len(frames) - 1)).astype(np.int64)]
        return rows

    def _amplify(self, frames: Frames, nats: npt.NDArray[np.float32]) -> Frames:
        """Changes the power of each band by a factor, of which ``nats`` is the logarithm."""
        if not self._offset:
            return frames + nats
        power = np.maximum(np.exp(frames) - self._offset, 0)
        louder: Frames = np.log(power * np.exp(nats) + self._offset)
        return louder

    def mask(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """Sets random spans of time and random bands of normalised frames to zero."""
        config = self.config
        if not (config.time_masks or config.mel_masks):
            return frames
        frames = frames.copy()
        widest = config.time_mask * len(frames)
        frames[random_spans(config.time_masks, len(frames), widest, rng)] = 0
        frames[:, random_spans(config.mel_masks, frames.shape[1], config.mel_mask, rng)] = 0
        return frames


def tilt_curve(
    positions: npt.NDArray[np.floating], spread: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draws a smooth curve: the sum of half, one and one and a half cosine periods over [0, 1]."""
    total = np.zeros(len(positions))
    for order, weight in enumerate(rng.normal(0, spread, size=3), 1):
        total += weight * np.cos(np.pi * order * positions)
    return total


def random_spans(
    number: int, length: int, widest: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Draws spans, each of at most ``widest`` positions, rounded up.

    Returns:
        (length,), True at the positions that they hide together. A span that would leave none is
        left out.
    """
    hidden = np.zeros(length, dtype=np.bool_)
    for _ in range(number):
        width = min(int(rng.uniform(0, widest + 1)), length)
        start = int(rng.integers(0, length - width + 1))
        more = hidden.copy()
        more[start : start + width] = True
        hidden = hidden if more.all() else more
    return hidden
