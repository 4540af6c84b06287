"""Scores of a classifier on a split, from its probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)


@dataclass(frozen=True)
class Scores:
    """What a classifier reaches on a split.

    Args:
        accuracy: Share of clips whose most probable class is the true one.
        interval: Its 95 % Wilson interval over clips. Clips of one speaker or recording are alike,
            so the true spread over new speakers is wider.
        macro_f1: Mean over classes of the F1 score.
        per_class: For each class its precision, recall, f1 and support (clips).
        confusion: (classes, classes), true class by row, predicted one by column.
    """

    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    per_class: dict[str, dict[str, float]]
    confusion: Tensor
    metric = "accuracy"

    def as_dict(self) -> dict[str, Any]:
        """Returns everything but the confusion matrix, for ``report.json``."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "macro_f1": self.macro_f1,
            "per_class": self.per_class,
        }


def score(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Scores predictions.

    Args:
        probabilities: (clips, classes).
        labels: (clips,), class indices.
        classes: Class names.

    Returns:
        The scores; a class without a clip counts as zero in the macro mean.
    """
    count = len(classes)
    predicted = probabilities.argmax(dim=1)
    each = {
        "precision": multiclass_precision(predicted, labels, count, average="none"),
        "recall": multiclass_recall(predicted, labels, count, average="none"),
        "f1": multiclass_f1_score(predicted, labels, count, average="none"),
        "support": torch.bincount(labels, minlength=count),
    }
    accuracy = multiclass_accuracy(predicted, labels, count, average="micro").item()
    return Scores(
        accuracy=accuracy,
        interval=wilson_interval(accuracy, len(labels)),
        macro_f1=multiclass_f1_score(predicted, labels, count, average="macro").item(),
        per_class={
            name: {key: value[i].item() for key, value in each.items()}
            for i, name in enumerate(classes)
        },
        confusion=multiclass_confusion_matrix(predicted, labels, count),
    )


def wilson_interval(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns the Wilson score interval of a binomial share (95 % by default).

    Reference: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927).

    Args:
        share: Successes / trials.
        count: Trials, at least 1.
        z: Quantile of the normal distribution.
    """
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
