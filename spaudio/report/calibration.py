"""Calibration: how well probabilities match the accuracy, and what a threshold would keep.

Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15  # of equal width, as in the paper
STEPS = 100  # thresholds of a class, from 0 to 0.99

Numbers = npt.NDArray[np.float64]


def confidences(probabilities: Tensor, labels: Tensor) -> tuple[Numbers, Numbers]:
    """Returns the probabilities to evaluate, and whether each of them is correct.

    Args:
        probabilities: (clips, classes).
        labels: (clips,), class indices, or for several labels per clip (clips, classes), 0 or 1.

    Returns:
        With one label, the largest probability of each clip and whether its class is right, both
        (clips,). With several, every probability and whether the clip has the class, both
        (clips * classes,).
    """
    if labels.dim() == 2:
        return probabilities.flatten().double().numpy(), labels.flatten().double().numpy()
    confidence, predicted = probabilities.max(dim=1)
    return confidence.double().numpy(), (predicted == labels).double().numpy()


def reliability(confidence: Numbers, right: Numbers) -> list[dict[str, float]]:
    """Sorts probabilities into bins of equal width, ``(low, high]``.

    Args:
        confidence: Probabilities, (count,).
        right: 1 where the prediction is right, else 0, (count,).

    Returns:
        For each non-empty bin: ``low``, ``high``, ``count``, and the means ``confidence`` and
        ``accuracy``.
    """
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "count": int((place == b).sum()),
            "confidence": float(confidence[place == b].mean()),
            "accuracy": float(right[place == b].mean()),
        }
        for b in range(BINS)
        if (place == b).any()
    ]


def calibration_error(bins: Sequence[dict[str, float]]) -> float:
    """Expected calibration error: mean gap between accuracy and confidence, weighted by count."""
    gaps = [b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins]
    return sum(gaps) / sum(b["count"] for b in bins)


def measure_calibration(
    before: Tensor, after: Tensor, labels: Tensor, temperature: float
) -> dict[str, Any]:
    """Measures probabilities before and after temperature scaling, for ``report.json``.

    Args:
        before: (clips, classes), of the test split.
        after: The same with the temperature.
        labels: As for :func:`confidences`.
        temperature: Fitted on the validation split.

    Returns:
        ``temperature``; and ``before`` and ``after``: expected calibration error ``ece``, mean
        cross-entropy ``loss`` in nats, and ``bins``.
    """
    found: dict[str, Any] = {"temperature": temperature}
    for name, probabilities in (("before", before), ("after", after)):
        bins = reliability(*confidences(probabilities, labels))
        chances = probabilities.double()
        if labels.dim() == 2:
            loss = F.binary_cross_entropy(chances, labels.double())
        else:
            loss = F.nll_loss(chances.clamp_min(torch.finfo(torch.float32).tiny).log(), labels)
        found[name] = {"ece": calibration_error(bins), "loss": loss.item(), "bins": bins}
    return found


def count_above(confidence: Numbers, right: Numbers) -> tuple[list[int], list[int]]:
    """Counts the probabilities that reach each of `STEPS` thresholds, and the correct ones of them.

    Precision is correct / reached; recall is correct / clips of the class.
    """
    thresholds = np.arange(STEPS) / STEPS
    order = np.argsort(confidence)
    ranked, hits = confidence[order], np.append(0, np.cumsum(right[order]))
    below = np.searchsorted(ranked, thresholds - 1e-9)
    return (len(ranked) - below).tolist(), (hits[-1] - hits[below]).astype(int).tolist()


def source_of(calibration: Mapping[str, Any]) -> str:
    """Returns where a temperature comes from, as the ``calibration`` of a report has it."""
    return " ".join(filter(None, (calibration["source"], calibration.get("caveat"))))
