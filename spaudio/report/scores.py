"""Scores of a classifier on a split, from its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import binomtest
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
    """Scores of a classifier on a split.

    Args:
        accuracy: Share of clips whose most probable class is the true one.
        interval: Its 95 % Wilson interval over clips. It assumes independent clips. If several are
            from one speaker or recording, the uncertainty for new speakers is larger.
        macro_f1: Mean over classes of the F1 score.
        per_class: Precision, recall, f1 and support (number of clips) of each class.
        confusion: (classes, classes); rows are true classes, columns predicted ones.
    """

    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    per_class: dict[str, dict[str, float]]
    confusion: Tensor
    metric = "accuracy"

    def as_dict(self) -> dict[str, Any]:
        """Returns all but the confusion matrix, for ``report.json``."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "macro_f1": self.macro_f1,
            "per_class": self.per_class,
        }


def score(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Computes the scores of predictions.

    Args:
        probabilities: (clips, classes).
        labels: (clips,), class indices.
        classes: Class names.

    Returns:
        The scores. A class without clips counts as zero in the macro mean.
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
    hits = binomtest(int((predicted == labels).sum()), len(labels))
    return Scores(
        accuracy=accuracy,
        interval=tuple(hits.proportion_ci(method="wilson")),
        macro_f1=multiclass_f1_score(predicted, labels, count, average="macro").item(),
        per_class={
            name: {key: value[i].item() for key, value in each.items()}
            for i, name in enumerate(classes)
        },
        confusion=multiclass_confusion_matrix(predicted, labels, count),
    )
