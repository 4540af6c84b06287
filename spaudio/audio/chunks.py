"""Cuts a stream of samples into windows of one length, so that files may have any length."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


def cut_windows(
    pieces: Iterable[NDArray[np.float32]], length: int
) -> Iterator[NDArray[np.float32]]:
    """Cuts a stream into windows, one after the other; the last one ends with the stream.

    The last window overlaps the one before it, so that none is shorter than ``length``. A stream of
    at most ``length`` samples is one window. Memory holds one piece and two windows.

    Args:
        pieces: Waveforms (samples,), of any lengths.
        length: Samples per window, at least 1.

    Yields:
        Windows, (length,) or, for a short stream, (samples,).
    """
    kept: list[NDArray[np.float32]] = []
    count, before = 0, np.zeros(0, dtype=np.float32)
    for piece in pieces:
        kept.append(piece)
        count += len(piece)
        if count > length:
            joined = np.concatenate(kept)
            # At least one sample is held back: it may be the last of the stream.
            end = (count - 1) // length * length
            for start in range(0, end, length):
                before = joined[start : start + length]
                yield before
            kept, count = [joined[end:]], count - end
    if count:
        yield np.concatenate([before, *kept])[-length:]
