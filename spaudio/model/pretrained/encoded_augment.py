"""Augmentation of the log-mel input of pretrained encoders with :mod:`spaudio.tokens.augment`."""

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spaudio.model.pretrained.pretrained_encoder import LogMelInput
from spaudio.tokens.augment import Augment, AugmentConfig
from spaudio.tokens.config import Frames


class EncodedAugment(Augment):
    """Augments the input of a pretrained encoder, one clip at a time.

    Settings have the same units and distributions as for log-mel frames. Masks set bands to their
    mean over the clip. The silence around a clip keeps its length. A clip that becomes too long for
    the encoder is cut. Bands and time are stretched by interpolation: the encoder has never seen
    repeated frames, and with them the validation accuracy was lower on ESC-50 and RAVDESS.

    Args:
        config: The settings. ``noise``, ``crop``, ``mixup_power`` and ``mixstyle`` are ignored.
        input: What the encoder reads.
    """

    ignored = ("noise", "crop", "mixup_power", "mixstyle")

    def __init__(self, config: AugmentConfig, input: LogMelInput) -> None:
        super().__init__(config, None)
        self._input = input

    @override
    def _rows(self, frames: Frames, positions: npt.NDArray[np.floating]) -> Frames:
        positions = np.clip(positions, 0, len(frames) - 1)
        lower = positions.astype(np.int64)
        upper = np.minimum(lower + 1, len(frames) - 1)
        weight = (positions - lower).astype(np.float32)[:, None]
        rows: Frames = frames[lower] * (1 - weight) + frames[upper] * weight
        return rows

    @override
    def vary(self, frames: Frames, rng: np.random.Generator, length: int = 0) -> Frames:
        """Varies level, spectral tilt, mel axis, tempo and position of (frames, n_mels).

        Clips are never cut to an excerpt, so ``length`` must be 0.
        """
        assert not length
        about = self._input
        start, end = self._own(frames)
        if end <= start:
            return frames
        silent = about.silence(len(frames))[1]
        before, own, after = np.split(frames, [start, end])
        loudest = own.max()
        own = super().vary(own * np.float32(about.nats), rng) / np.float32(about.nats)
        own = np.maximum(own, own.max() - about.range)
        before, after = (silence + (own.max() - loudest) for silence in (before, after))
        if about.padding is None:
            # Input of full length counts as a clip without silence (`LogMelInput.silence`). One
            # with silence must stay shorter, by two frames, which make one token; one of full
            # length must not become shorter.
            own = own[: about.most - start - silent - 2 * bool(silent)]
            missing = about.most - len(own) if len(frames) >= about.most else 0
            own = np.pad(own, ((0, missing), (0, 0)), constant_values=own.max() - about.range)
        else:
            own = own[: about.most]
            after = np.full_like(frames[len(own) :], about.padding)
        varied: Frames = np.concatenate([before, own, after])
        return varied

    @override
    def mask(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """Sets random spans of time and random bands of the clip to the mean of each band."""
        start, end = self._own(frames)
        if end <= start:
            return frames
        before, own, after = np.split(frames, [start, end])
        mean = own.mean(axis=0)
        masked: Frames = np.concatenate([before, super().mask(own - mean, rng) + mean, after])
        return masked

    def _own(self, frames: Frames) -> tuple[int, int]:
        """Returns where the clip itself begins and ends, without silence and padding."""
        start, silent = self._input.silence(len(frames))
        if self._input.padding is None:
            return start, len(frames) - silent
        # The cache has rounded the padding to float16.
        used = np.flatnonzero(np.abs(frames - self._input.padding).max(axis=1) > 1e-3)
        return start, int(used[-1]) + 1 if len(used) else 0
