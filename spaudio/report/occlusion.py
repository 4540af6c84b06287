"""Occlusion: hides parts of a sound and measures how the prediction changes.

Source: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
A patch slides over time and bands and is set to zero. In normalised log-mel frames, zero is the
mean of the band in the training data, as in the masks of SpecAugment; with ``clip_level``, that is
relative to the level of the clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaudio.audio.chunks import in_batches
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.front_end import FrontEnd, stack_frames
from spaudio.tokens.scales import mel_edges

COLUMNS, ROWS = 24, 8  # cells over time, and over the bands
_WIDE, _HIGH = 3, 2  # size of a patch in cells
_BATCH = 32
_SHOWN = 3  # most intervals and bands


@dataclass(frozen=True)
class Importance:
    """What hiding a part of a sound does to the prediction.

    Args:
        drop: (rows, columns), drop in the log-odds of the class, mean over all patches that cover
            the cell; row 0 is the lowest band.
        seconds: (columns + 1,), edges of the cells.
        hertz: (rows + 1,), edges of the cells.
        intervals: The intervals that matter most, each hidden alone over all bands: start and end
            in seconds, and the drop; the most important first.
        bands: The same for bands over all time, in Hz.
    """

    drop: NDArray[np.float64]
    seconds: NDArray[np.float64]
    hertz: NDArray[np.float64]
    intervals: list[tuple[float, float, float]]
    bands: list[tuple[float, float, float]]


def occlude_frames(
    frames: Frames,
    front_end: FrontEnd,
    logits: Callable[[Sequence[Frames]], Tensor],
    number: int,
    multi_label: bool,
    length: float,
) -> Importance:
    """Hides parts of log-mel frames.

    Args:
        frames: (frames, bands), restored from the cache.
        front_end: The run's. Frames that it cuts away have no importance.
        logits: Takes clips as tokens, each (tokens, features), and returns their logits (clips,
            classes).
        number: Index of the class.
        multi_label: As for :func:`log_odds`.
        length: Length of the clip, in seconds; the last frame may begin where it ends.
    """
    frames = front_end.amplify(frames)
    config, heard = front_end.config, front_end.heard(frames)
    values = np.zeros(frames.shape, np.float32)
    values[heard] = front_end.normalise(frames[heard])

    def answer(variants: Sequence[Frames]) -> NDArray[np.float64]:
        tokens = [stack_frames(one[heard], config.stack) for one in variants]
        return log_odds(logits(tokens), number, multi_label)

    seconds = np.minimum(np.arange(len(frames) + 1) * config.frame_seconds, length)
    return measure_importance(values, answer, seconds, _band_edges(config))


def measure_importance(
    values: Frames,
    answer: Callable[[Sequence[Frames]], NDArray[np.float64]],
    seconds: NDArray[np.float64],
    hertz: NDArray[np.float64],
) -> Importance:
    """Hides patches of an input, then whole intervals and bands.

    Args:
        values: (steps, bands), in which zero carries no information.
        answer: Takes variants of ``values`` and returns the log-odds of the class, (variants,).
        seconds: (steps + 1,), edges of the steps.
        hertz: (bands + 1,), edges of the bands.
    """
    steps, bands = _edges(len(values), COLUMNS), _edges(values.shape[1], ROWS)
    columns, rows = len(steps) - 1, len(bands) - 1
    wide, high = min(_WIDE, columns), min(_HIGH, rows)
    before = answer([values])[0]

    def drops(areas: Sequence[tuple[slice, slice]]) -> NDArray[np.float64]:
        found = [np.zeros(0)]
        for batch in in_batches(areas, _BATCH):
            hidden = [values.copy() for _ in batch]
            for variant, area in zip(hidden, batch, strict=True):
                variant[area] = 0
            found.append(before - answer(hidden))
        return np.concatenate(found)

    cells = [
        (slice(max(0, column), column + wide), slice(max(0, row), row + high))
        for row in range(1 - high, rows)
        for column in range(1 - wide, columns)
    ]
    areas = [
        (slice(*steps[[time.start, min(time.stop, columns)]]),
         slice(*bands[[band.start, min(band.stop, rows)]]))
        for time, band in cells
    ]  # fmt: skip
    total, covered = np.zeros((rows, columns)), np.zeros((rows, columns))
    for (time, band), drop in zip(cells, drops(areas), strict=True):
        total[band, time] += drop
        covered[band, time] += 1
    drop = total / covered
    everything = slice(None)
    times = [slice(*steps[[a, b]]) for a, b in _peaks(drop.mean(axis=0))]
    heights = [slice(*bands[[a, b]]) for a, b in _peaks(drop.mean(axis=1))] if rows > 1 else []
    return Importance(
        drop,
        seconds[steps],
        hertz[bands],
        _most_important(times, drops([(one, everything) for one in times]), seconds),
        _most_important(heights, drops([(everything, one) for one in heights]), hertz),
    )


def log_odds(logits: Tensor, number: int, multi_label: bool) -> NDArray[np.float64]:
    """Returns the log-odds of one class.

    Args:
        logits: (variants, classes).
        number: Index of the class.
        multi_label: A clip may have several classes, each with a probability of its own.

    Returns:
        (variants,).
    """
    logits = logits.double().cpu()
    chosen = logits[:, number]
    if not multi_label:
        others = torch.arange(logits.shape[1]) != number
        chosen = chosen - logits[:, others].logsumexp(dim=1)
    return np.asarray(chosen)


def _band_edges(config: TokenConfig) -> NDArray[np.float64]:
    """Returns the edges of log-mel bands in Hz, (bands + 1,): a band begins below its centre."""
    edges = mel_edges(config.bands, config.f_min, config.top)
    return np.concatenate([edges[:-2], [config.top]])


def _peaks(profile: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Returns where a profile exceeds half of its maximum: first and one past the last cell."""
    if profile.max() <= 0:
        return []
    above = np.concatenate([[0], profile >= profile.max() / 2, [0]]).astype(int)
    starts, ends = np.flatnonzero(np.diff(above) == 1), np.flatnonzero(np.diff(above) == -1)
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _most_important(
    spans: Sequence[slice], drops: NDArray[np.float64], edges: NDArray[np.float64]
) -> list[tuple[float, float, float]]:
    """Returns ends and drop of the spans whose absence counts against the class, by their drop."""
    pairs = zip(spans, drops, strict=True)
    found = [(float(edges[s.start]), float(edges[s.stop]), float(d)) for s, d in pairs if d > 0]
    return sorted(found, key=lambda part: -part[2])[:_SHOWN]


def _edges(size: int, cells: int) -> NDArray[np.int64]:
    """Divides ``size`` positions into at most ``cells`` cells of nearly the same width."""
    return np.linspace(0, size, min(size, cells) + 1).round().astype(np.int64)
