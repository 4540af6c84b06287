import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import average_precision_score

from spaudio.training.mixing import Mixing
from spaudio.training.multilabel import MultiLabel, MultiLabelPredictions, average_precisions
from tests.training.test_objective import MeanModel, batch

LABELS = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]).float()


def test_average_precision_is_scikit_learns_and_undefined_without_a_clip() -> None:
    scores = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    labels = (torch.rand(50, 4, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    labels[:, 3] = 0
    found = average_precisions(scores, labels)
    expected = average_precision_score(labels[:, :3], scores[:, :3], average=None)
    assert found[:3] == pytest.approx(expected, rel=1e-5)
    assert math.isnan(found[3])
    predictions = MultiLabelPredictions(scores, labels, 0.1)
    assert predictions.mean_average_precision == pytest.approx(expected.mean(), rel=1e-5)
    assert predictions.rank == (predictions.mean_average_precision, -0.1)


@pytest.mark.parametrize(("smoothing", "mixup"), [(0.0, 0.0), (0.2, 0.0), (0.2, 1.0)])
def test_the_loss_is_the_binary_cross_entropy_of_each_class(smoothing: float, mixup: float) -> None:
    one = batch([0, 1, 2, 3, 4, 5], LABELS)
    target = LABELS * (1 - smoothing) + smoothing / 2
    logits = MeanModel()(one.tokens, one.padding_mask)
    mixing = Mixing(mixup=mixup)
    mixed = mixing(one, np.random.default_rng(3))
    if mixed is not None:  # the targets are mixed by the share of the tokens
        share = mixed.share[:, None]
        target = share * target + (1 - share) * target[mixed.other]
        logits = MeanModel()(mixed.tokens, mixed.padding_mask)
    loss = MultiLabel(smoothing, mixing).loss(MeanModel(), one, np.random.default_rng(3))
    chance = logits.sigmoid()
    expected = -(target * chance.log() + (1 - target) * (1 - chance).log()).mean()
    torch.testing.assert_close(loss, expected)


def test_predictions_come_in_the_order_of_the_clips_and_parts_are_averaged() -> None:
    objective, cpu = MultiLabel(), Accelerator(cpu=True)
    whole = objective.measure(MeanModel(), [batch([0, 1, 2, 3, 4, 5], LABELS)], cpu)
    parts = [batch([4, 0, 5], LABELS), batch([1, 3, 2], LABELS)]
    mixed = objective.measure(MeanModel(), parts, cpu)
    torch.testing.assert_close(mixed.probabilities, whole.probabilities)
    torch.testing.assert_close(mixed.labels, LABELS)
    assert mixed.loss == pytest.approx(whole.loss)
    split = batch([0, 2], LABELS)._replace(clips=torch.tensor([0, 0]), labels=LABELS[[0, 0]])
    voted = objective.measure(MeanModel(), [split], cpu)
    torch.testing.assert_close(voted.probabilities[0], whole.probabilities[[0, 2]].mean(dim=0))
    assert voted.labels.tolist() == [[1, 0, 1]]
