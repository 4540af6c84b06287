"""Cuts a stream of samples into windows of one length, so that sound may have any length."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from spaudio.audio.decode import Waveform

_T = TypeVar("_T")


class Window(NamedTuple):
    """A section of a stream.

    Args:
        start: Its first sample, counted from the start of the stream.
        samples: (samples,).
    """

    start: int
    samples: Waveform


def cut_windows(
    pieces: Iterable[Waveform], length: int, hop: int | None = None
) -> Iterator[Window]:
    """Cuts a stream into windows; each is yielded as soon as its last sample has arrived.

    The last window ends with the stream, so none is shorter than ``length``; if need be, it
    overlaps the one before it by more than the others do. A stream of at most ``length`` samples is
    one window. Memory holds one piece and two windows.

    Args:
        pieces: Waveforms (samples,), of any lengths.
        length: Samples per window, at least 1.
        hop: Samples from one window to the next, from 1 to ``length``; None takes ``length``.

    Yields:
        Windows of (length,) or, for a short stream, (samples,).
    """
    hop = length if hop is None else hop
    # `kept` are the samples from `first` on; the next window starts at `start`.
    kept: list[Waveform] = []
    first = start = count = covered = 0
    for piece in pieces:
        kept.append(piece)
        count += len(piece)
        if count < start + length:
            continue
        joined = np.concatenate(kept)
        while start + length <= count:
            yield Window(start, joined[start - first : start - first + length])
            covered, start = start + length, start + hop
        oldest = min(start, count - length)  # the last window may begin before the next one
        kept, first = [joined[oldest - first :]], oldest
    if covered < count:
        rest = np.concatenate(kept)[-length:]
        yield Window(count - len(rest), rest)


def in_batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yields items in lists of ``size``, the last one shorter."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
