from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics

from spaudio.report.scores import score, wilson_interval

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


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (291, 300), (1, 3)])
def test_interval_equals_scipys(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    low, high = wilson_interval(hits / count, count)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)
