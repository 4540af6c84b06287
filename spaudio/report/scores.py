"""Scores of a classifier on a split, from its probabilities."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # submodules load on first use
import torch
from torch import Tensor

from spaudio.training.multilabel import average_precisions


@dataclass(frozen=True)
class Scores:
    """Scores of a classifier on a split.

    Args:
        metric: Name of the main score, ``accuracy`` or ``mAP``.
        values: All scores, for ``report.json``; None where a value is not finite.
        detail: Text that qualifies the main score.
        confusion: (classes, classes); rows are true classes, columns predicted ones. None for
            several labels per clip.
    """

    metric: str
    values: dict[str, Any]
    detail: str
    confusion: Tensor | None = None


def score(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Computes the scores of predictions of one label per clip.

    Args:
        probabilities: (clips, classes).
        labels: (clips,), class indices.
        classes: Class names.

    Returns:
        ``accuracy``; ``interval``, its 95 % Wilson interval over clips; ``macro_f1``, the mean over
        the classes that have clips or are predicted; ``balanced_accuracy``, the mean recall of the
        classes that have clips; and ``per_class``: precision, recall, f1 and support (number of
        clips), None where a score is undefined. The interval assumes independent clips. If several
        are from one speaker or recording, the uncertainty for new speakers is larger.
    """
    from torchmetrics.functional.classification import (  # takes seconds to import
        multiclass_confusion_matrix,
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    count = len(classes)
    predicted = probabilities.argmax(dim=1)
    support, counted = (torch.bincount(one, minlength=count) for one in (labels, predicted))
    each = {
        "precision": multiclass_precision(predicted, labels, count, average="none"),
        "recall": multiclass_recall(predicted, labels, count, average="none"),
        "f1": multiclass_f1_score(predicted, labels, count, average="none"),
        "support": support,
    }
    hits = scipy.stats.binomtest(int((predicted == labels).sum()), len(labels))
    low, high = hits.proportion_ci(method="wilson")
    values = {
        # In double precision, to compare it with that of the floor.
        "accuracy": (predicted == labels).double().mean().item(),
        "interval": [low, high],
        "macro_f1": multiclass_f1_score(predicted, labels, count, average="macro").item(),
        "balanced_accuracy": each["recall"][each["support"] > 0].mean().item(),
        "per_class": {
            name: {key: value[i].item() for key, value in each.items()}
            | _undefined(int(support[i]), int(counted[i]))
            for i, name in enumerate(classes)
        },
    }
    confusion = multiclass_confusion_matrix(predicted, labels, count)
    return Scores("accuracy", values, f"95 % interval {low:.4f}-{high:.4f}", confusion)


def score_multilabel(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Computes the scores of predictions of several labels per clip.

    Args:
        probabilities: (clips, classes).
        labels: (clips, classes), 1 if the clip has the class, else 0.
        classes: Class names.

    Returns:
        ``mAP``, the average precision, averaged over the classes that occur; ``auc``, the area
        under the ROC curve, averaged over classes that also have negative clips; ``d_prime``,
        √2 · Φ⁻¹(AUC), infinite for an AUC of 1 (Fonseca et al., "FSD50K", arXiv 2010.00475); and
        ``per_class``: ap, auc and support (number of clips).
    """
    from sklearn.metrics import roc_auc_score  # loads slowly; few runs need it

    precisions = average_precisions(probabilities, labels)
    areas = [
        float(roc_auc_score(truth, chance)) if 0 < truth.sum() < len(truth) else math.nan
        for truth, chance in zip(labels.T.numpy(), probabilities.T.numpy(), strict=True)
    ]
    known = [area for area in areas if math.isfinite(area)]
    auc = statistics.fmean(known) if known else math.nan
    d_prime = math.sqrt(2) * float(scipy.stats.norm.ppf(auc))
    support = labels.sum(dim=0).tolist()
    values = {
        "mAP": float(np.nanmean(precisions)),
        "auc": _finite(auc),
        "d_prime": _finite(d_prime),
        "per_class": {
            name: {"ap": _finite(ap), "auc": _finite(area), "support": count}
            for name, ap, area, count in zip(classes, precisions, areas, support, strict=True)
        },
    }
    return Scores("mAP", values, f"d' {d_prime:.3f}" if known else "d' undefined")


def _undefined(actual: int, predicted: int) -> dict[str, None]:
    """Returns the scores that a class without clips or predictions does not have."""
    lacking = {"precision": not predicted, "recall": not actual, "f1": not (actual or predicted)}
    return {name: None for name, lacks in lacking.items() if lacks}


def shown_auc(values: Mapping[str, Any]) -> str:
    """Returns the ``auc`` of :func:`score_multilabel` as text."""
    return "undefined" if values["auc"] is None else f"{values['auc']:.4f}"


def _finite(value: float) -> float | None:
    """Replaces NaN and infinity, which JSON cannot hold."""
    return value if math.isfinite(value) else None
