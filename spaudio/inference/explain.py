"""Explains the prediction for a sound: finds the seconds and bands that decided its class."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaudio.audio.chunks import Window
from spaudio.audio.decode import Waveform
from spaudio.errors import ConfigError
from spaudio.inference.occlusion_plot import plot_importance
from spaudio.inference.predict import Predictor, finite
from spaudio.report.occlusion import Importance, log_odds, measure_importance, occlude_frames
from spaudio.tokens.config import Frames
from spaudio.tokens.dc_offset import without_offset


@dataclass(frozen=True)
class Explanation(Importance):
    """What decided the prediction for a sound.

    Args:
        label: The class that is explained.
        confidence: Its probability.
        start: Start of the explained window in the recording, in seconds.
        waveform: (samples,), the window.
        sample_rate: In Hz.
        drop: (rows, columns), drop in the log-odds of the class when a cell is hidden. One row if
            only intervals of time were hidden.
        seconds: (columns + 1,), edges of the cells, in the recording.
        hertz: (rows + 1,), edges of the cells.
        intervals: The intervals that matter most: start and end in seconds, and the drop in the
            log-odds when the whole interval is hidden; the most important first.
        bands: The same for bands, in Hz.
    """

    label: str
    confidence: float
    start: float
    waveform: Waveform
    sample_rate: int

    def draw(self, path: str | os.PathLike[str], title: str) -> None:
        """Draws the spectrogram and the importance of its parts, as PNG or SVG."""
        plot_importance(
            self.waveform, self.sample_rate, self.drop, self.seconds, self.hertz, Path(path),
            start=self.start, title=f"{title}: {self.label} {self.confidence:.2f}",
        )  # fmt: skip


def explain_sound(
    predictor: Predictor, pieces: Iterable[Waveform], label: str | None = None
) -> Explanation:
    """Explains the prediction for a sound.

    For a sound that is longer than the predictor's window, explains the window that adds most to
    the class in the mean over windows. Log-mel frames are hidden by time and band; with other
    front-ends, which have no bands, intervals of the samples are silenced.

    Args:
        predictor: Predictor of the run.
        pieces: Consecutive mono waveforms (samples,), at the predictor's rate.
        label: Class; None takes the most probable one.

    Raises:
        CheckpointError: If the model gives probabilities that are not finite.
        ConfigError: If the run has no such class.
    """
    classes = predictor.inputs.classes
    if label is not None and label not in classes:
        raise ConfigError(f"no class {label!r}; the run has {', '.join(classes)}")
    best: list[tuple[float, float, Window]] = []  # for each class
    total = torch.zeros(len(classes), dtype=torch.float64)
    for batch in predictor.windows(pieces):
        raw = predictor.raw_probabilities([window.samples for window in batch])
        finite(raw.numpy())
        weights = predictor.windows.weights(batch)
        total += weights @ raw  # of which predict reports the mean
        shares = predictor.tempered(raw)
        for window, weight, row in zip(batch, weights.tolist(), shares, strict=True):
            here = [(weight * share, share, window) for share in row.tolist()]
            best = [max(pair, key=itemgetter(0)) for pair in zip(best or here, here, strict=True)]
    number = int(total.argmax()) if label is None else classes.index(label)
    _, confidence, window = best[number]
    samples, rate = window.samples, predictor.sample_rate
    start, length = window.start / rate, len(samples) / rate
    front_end, multi_label = predictor.front_end, predictor.inputs.multi_label

    def logits(tokens: Iterable[Frames]) -> Tensor:
        return predictor.logits(tokens) / predictor.inputs.temperature

    if front_end.config.front_end == "spectrogram":
        frames = front_end.restore(front_end.extract(samples))
        found = occlude_frames(frames, front_end, logits, number, multi_label, length)
    else:

        def answer(variants: Iterable[Frames]) -> NDArray[np.float64]:
            tokens = (predictor.tokens(one[:, 0].copy()) for one in variants)
            return log_odds(logits(tokens), number, multi_label)

        seconds = np.minimum(np.arange(len(samples) + 1) * (1 / rate), length)
        centred = without_offset(samples)  # else a hidden interval would begin with a click
        found = measure_importance(centred[:, None], answer, seconds, np.array([0.0, rate / 2]))
    in_recording = replace(
        found,
        seconds=start + found.seconds,
        intervals=[(start + low, start + high, drop) for low, high, drop in found.intervals],
    )
    return Explanation(
        **vars(in_recording),
        label=classes[number],
        confidence=confidence,
        start=start,
        waveform=samples,
        sample_rate=rate,
    )
