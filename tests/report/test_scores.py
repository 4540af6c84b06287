"""Scores of one and of several labels, by hand."""

import json
import math

import pytest
import torch

from spaudio.report.scores import score, score_multilabel

CLASSES = ("a", "b", "c", "d")


def test_scores_of_each_class() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 0, 1, 1, 3, 3])  # class c is missed, d has no clip
    scores = score(torch.eye(4)[predicted], labels, CLASSES)
    each = {name: tuple(row.values()) for name, row in scores.values["per_class"].items()}
    assert each == {
        "a": pytest.approx((1, 3 / 4, 6 / 7, 4)),
        "b": pytest.approx((1 / 2, 1 / 2, 1 / 2, 2)),
        "c": (None, 0, 0, 1),
        "d": (0, None, 0, 0),
    }
    assert list(scores.values["per_class"]["a"]) == ["precision", "recall", "f1", "support"]
    assert scores.values["accuracy"] == 4 / 7  # the floor with as many right clips is not below it
    assert scores.values["macro_f1"] == pytest.approx((6 / 7 + 1 / 2) / 4)
    assert scores.values["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 3)
    assert scores.confusion is not None
    assert scores.confusion.tolist() == [[3, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_macro_f1_is_the_mean_over_classes_with_clips_or_predictions() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    values = score(torch.eye(3)[[0, 0, 1, 1]], labels, ("a", "b", "c")).values
    assert values["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert values["per_class"]["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    # Wilson's interval of 3 of 4: (p + z²/2n ± z √(pq/n + z²/4n²)) / (1 + z²/n), z = 1.96.
    assert values["interval"] == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_d_prime_is_the_distance_of_two_normal_distributions() -> None:
    labels = torch.zeros(20_000, 2)
    labels[:10_000] = 1
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    values = score_multilabel(noise + 1.5 * labels, labels, ["a", "b"]).values
    assert values["d_prime"] == pytest.approx(1.5, abs=0.03)
    assert values["per_class"]["a"]["support"] == 10_000


def test_classes_without_clips_are_left_out_of_the_means() -> None:
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]).float()
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], [0.8, 0.05, 0.5], [0.2, 0.2, 0.5]])
    values = score_multilabel(scores, labels, ["a", "b", "c"]).values
    second = (1 + 2 / 4) / 2  # its clips come first and last of four
    assert values["per_class"]["b"]["ap"] == pytest.approx(second)
    assert values["per_class"]["c"] == {"ap": None, "auc": None, "support": 0.0}
    assert values["mAP"] == pytest.approx((1 + second) / 2)
    assert values["auc"] == pytest.approx((1 + 2 / 4) / 2)


def test_an_infinite_d_prime_is_null_in_json() -> None:
    labels = torch.tensor([[1, 0], [0, 0]]).float()
    found = score_multilabel(labels, labels, ["a", "b"])
    assert found.detail == f"d' {math.inf}"
    assert json.loads(json.dumps(found.values, allow_nan=False))["d_prime"] is None
    always = score_multilabel(labels, torch.ones(2, 2), ["a", "b"])  # no clip is without a class
    assert always.detail == "d' undefined"
