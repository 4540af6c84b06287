from __future__ import annotations

import json
import math

import pytest
import torch

from spaudio.report.multilabel_scores import score_multilabel


def test_d_prime_is_the_distance_of_two_normal_distributions() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(20_000, 2)
    labels[:10_000] = 1
    scores = torch.randn(20_000, 2) + 1.5 * labels  # unit variance, means 1.5 apart
    found = score_multilabel(scores, labels, ["a", "b"])
    assert found.d_prime == pytest.approx(1.5, abs=0.03)
    assert found.per_class["a"]["support"] == 10_000


def test_classes_without_clips_are_left_out_of_the_means() -> None:
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]).float()
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], [0.8, 0.05, 0.5], [0.2, 0.2, 0.5]])
    found = score_multilabel(scores, labels, ["a", "b", "c"])
    second = (1 + 2 / 4) / 2  # its clips come first and last of four
    assert found.per_class["b"]["ap"] == pytest.approx(second)
    assert math.isnan(found.per_class["c"]["ap"])
    assert found.mean_average_precision == pytest.approx((1 + second) / 2)
    assert found.auc == pytest.approx((1 + 2 / 4) / 2)


def test_what_is_not_finite_is_null_in_json() -> None:
    labels = torch.tensor([[1, 0], [0, 0]]).float()
    found = score_multilabel(labels, labels, ["a", "b"])
    assert found.d_prime == math.inf
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["d_prime"] is None
    assert plain["per_class"]["b"] == {"ap": None, "auc": None, "support": 0.0}
    assert plain["mAP"] == 1.0
