"""Cuts a sound of any length into the windows that a model classifies, and weights them."""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from spaudio.audio.chunks import Window, cut_windows, in_batches
from spaudio.audio.decode import Waveform, is_silent
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dc_offset import without_offset
from spaudio.tokens.normalise import mean_square
from spaudio.tokens.segments import SegmentConfig

_BATCH = 16  # windows


class SoundWindows:
    """How the sounds of a model are cut.

    Windows overlap by half, so that a short sound lies whole in one of them. They are weighted by
    their power without the DC offset, because few training clips were mere pauses, and a pause can
    look like any class. If the clips of the run were cut into segments, windows overlap as these do
    and have equal weights, as in the evaluation.

    Args:
        seconds: Length of a window.
        tokens: Settings of the front-end.
        segments: How the clips of the run were cut, if they were.
    """

    def __init__(self, seconds: float, tokens: TokenConfig, segments: SegmentConfig | None) -> None:
        self.seconds, self.sample_rate = seconds, tokens.sample_rate
        self.samples = math.ceil(seconds * self.sample_rate)
        self.hop_samples = -(-self.samples // 2)
        self._is_cut = segments is not None
        if segments is not None:
            cut = SegmentConfig(seconds, segments.hop)
            length, step = cut.in_frames(tokens.frame_seconds)
            self.samples = length * tokens.hop_samples
            self.hop_samples = min(length, step) * tokens.hop_samples

    def __call__(self, pieces: Iterable[Waveform]) -> Iterator[list[Window]]:
        """Cuts a sound of any length, and yields its windows in batches.

        Silent windows are left out, unless the model was trained on segments, of which some may
        have been silent, or the whole sound is silent.

        Args:
            pieces: Consecutive waveforms (samples,) at the model's rate.
        """
        found = cut_windows(pieces, self.samples, self.hop_samples)
        kept = map(self._as_segment, found) if self._is_cut else _audible(found)
        return in_batches(kept, _BATCH)

    def weights(self, windows: Sequence[Window]) -> Tensor:
        """Returns the weight of each window (windows,) in the mean over a sound, float64."""
        if self._is_cut:
            return torch.ones(len(windows), dtype=torch.float64)
        # The only window of a silent sound must have a weight, too.
        centred = (without_offset(window.samples) for window in windows)
        powers = [max(mean_square(samples), 1e-12) for samples in centred]
        return torch.tensor(powers, dtype=torch.float64)

    @property
    def in_words(self) -> str:
        """How to predict a long sound from its windows, as an instruction."""
        hop = self.hop_samples / self.sample_rate
        overlap = "" if self.hop_samples == self.samples else f", one every {hop:g} s"
        rest, how = "leave silent ones out", "weighted by the variance of their samples"
        if self._is_cut:
            rest, how = "leave out the last sample of each full one", "with equal weights"
        return (
            f"cut them into windows of {self.seconds:g} s{overlap}, the last at the end, {rest}, "
            f"and average their probabilities {how}"
        )

    def _as_segment(self, window: Window) -> Window:
        """Leaves out the last sample of a full window.

        Frames are centred, so with it a window would have one frame more than a segment.
        """
        if len(window.samples) < self.samples:
            return window
        return window._replace(samples=window.samples[:-1])


def _audible(windows: Iterable[Window]) -> Iterator[Window]:
    """Yields the windows that are not silent, or the first one if all are."""
    first, any_sound = None, False
    for window in windows:
        first = first or window
        if not is_silent(window.samples):
            any_sound = True
            yield window
    if not any_sound and first is not None:
        yield first
