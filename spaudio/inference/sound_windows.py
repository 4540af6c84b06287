"""Cuts a sound of any length into the windows that a model classifies."""

import math
from collections.abc import Iterable, Iterator

from spaudio.audio.chunks import Window, cut_windows, in_batches
from spaudio.audio.decode import Waveform, is_silent
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dataset import SegmentConfig

_BATCH = 16  # windows


class SoundWindows:
    """How the sounds of a model are cut.

    Args:
        seconds: Length of a window.
        tokens: Settings of the front-end.
        segments: How the clips of the run were cut, if they were: windows overlap as segments do.
    """

    def __init__(self, seconds: float, tokens: TokenConfig, segments: SegmentConfig | None) -> None:
        self.seconds, self.sample_rate = seconds, tokens.sample_rate
        self.samples = self.hop_samples = math.ceil(seconds * self.sample_rate)
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

    @property
    def in_words(self) -> str:
        """How a sound is cut, for a person."""
        hop = self.hop_samples / self.sample_rate
        overlap = "" if self.hop_samples == self.samples else f", one every {hop:g} s"
        rest = ", leave silent ones out"
        if self._is_cut:
            rest = ", leave out the last sample of each full one"
        return f"windows of {self.seconds:g} s{overlap}, the last at the end{rest}"

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
