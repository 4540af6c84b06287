"""Scores of a multi-label classifier on a split, from its probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch import Tensor

from spaudio.train.multilabel import average_precisions


@dataclass(frozen=True)
class MultiLabelScores:
    """Scores of a multi-label classifier on a split.

    Means are over classes that occur in the split; that of the AUC, over those that also have
    negative clips.

    Args:
        mean_average_precision: Macro mean of the average precision (mAP).
        auc: Macro mean of the area under the ROC curve.
        per_class: Average precision, AUC (NaN where undefined) and support (number of clips) of
            each class.
    """

    mean_average_precision: float
    auc: float
    per_class: dict[str, dict[str, float]]
    metric = "mAP"

    @property
    def d_prime(self) -> float:
        """Sensitivity index of the mean AUC, √2 · Φ⁻¹(AUC); infinite for an AUC of 1.

        Reference: Fonseca et al., "FSD50K", arXiv 2010.00475.
        """
        return math.sqrt(2) * float(norm.ppf(self.auc))

    def as_dict(self) -> dict[str, Any]:
        """Returns the scores for ``report.json``, with None for values that are not finite."""
        return {
            "mAP": self.mean_average_precision,
            "auc": self.auc,
            "d_prime": _finite(self.d_prime),
            "per_class": {
                name: {key: _finite(value) for key, value in row.items()}
                for name, row in self.per_class.items()
            },
        }


def score_multilabel(
    probabilities: Tensor, labels: Tensor, classes: Sequence[str]
) -> MultiLabelScores:
    """Computes the scores of predictions.

    Args:
        probabilities: (clips, classes).
        labels: (clips, classes), 1 if the clip has the class, else 0.
        classes: Class names.
    """
    precisions = average_precisions(probabilities, labels)
    areas = [
        float(roc_auc_score(truth, chance)) if 0 < truth.sum() < len(truth) else math.nan
        for truth, chance in zip(labels.T.numpy(), probabilities.T.numpy(), strict=True)
    ]
    support = labels.sum(dim=0).tolist()
    return MultiLabelScores(
        mean_average_precision=float(np.nanmean(precisions)),
        auc=float(np.nanmean(areas)),
        per_class={
            name: {"ap": ap, "auc": auc, "support": count}
            for name, ap, auc, count in zip(classes, precisions, areas, support, strict=True)
        },
    )


def _finite(value: float) -> float | None:
    """Replaces NaN and infinity, which JSON cannot hold."""
    return value if math.isfinite(value) else None
