from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from spaudio.report.scores import score

CLASSES = ("a", "b", "c", "d")


def test_scores_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=200)  # class d has no clip
    probabilities = rng.dirichlet(np.ones(4), size=200) + np.eye(4)[labels] * 0.3
    predicted = probabilities.argmax(axis=1)
    scores = score(torch.tensor(probabilities), torch.tensor(labels), CLASSES)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(4), zero_division=0
    )
    for i, name in enumerate(CLASSES):
        row = scores.per_class[name]
        assert row["precision"] == pytest.approx(precision[i])
        assert row["recall"] == pytest.approx(recall[i])
        assert row["f1"] == pytest.approx(f1[i])
        assert row["support"] == support[i]
    expected = metrics.confusion_matrix(labels, predicted, labels=range(4))
    assert scores.confusion.tolist() == expected.tolist()


def test_macro_f1_is_the_mean_over_classes() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    scores = score(torch.eye(2)[[0, 0, 1, 1]], labels, ("a", "b"))
    assert scores.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    # Wilson's interval of 3 of 4: (p + z²/2n ± z √(pq/n + z²/4n²)) / (1 + z²/n), z = 1.96.
    assert scores.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
