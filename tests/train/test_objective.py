from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.dataset import Batch
from spaudio.tokens.waveform import WaveformFrontEnd
from spaudio.train.objective import classification_loss, predict


class MeanModel(nn.Module):
    """Logits are the masked mean of the tokens."""

    def forward(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        kept = (~padding_mask).unsqueeze(-1)
        return (tokens * kept).sum(dim=1) / kept.sum(dim=1)


LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def batch(order: list[int], labels: Tensor = LABELS) -> Batch:
    """Clips of six, of which the second is shorter."""
    torch.manual_seed(0)
    tokens = torch.randn(6, 5, 3)
    padding = torch.zeros(6, 5, dtype=torch.bool)
    padding[1, 2:] = True
    tokens[padding] = 0
    i = torch.tensor(order)
    return Batch(tokens[i], padding[i], labels[i], i)


def test_predictions_come_in_the_order_of_the_clips() -> None:
    expected = predict(MeanModel(), [batch([0, 1, 2, 3, 4, 5])], Accelerator(cpu=True))
    mixed = predict(MeanModel(), [batch([4, 0, 5]), batch([1, 3, 2])], Accelerator(cpu=True))
    torch.testing.assert_close(mixed.probabilities, expected.probabilities)
    assert mixed.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert mixed.loss == pytest.approx(expected.loss)
    hits = (expected.probabilities.argmax(dim=1) == expected.labels).sum().item()
    assert expected.accuracy == pytest.approx(hits / 6)


def test_the_segments_of_a_clip_vote_by_their_mean_probability() -> None:
    one = batch([0, 1, 2, 3, 4, 5])
    single = predict(MeanModel(), [one], Accelerator(cpu=True))
    # Items 0 and 3 are segments of clip 0, 1 and 4 of clip 1, 2 and 5 of clip 2; in two batches.
    parts = [batch([4, 0, 5]), batch([1, 3, 2])]
    parts = [part._replace(clips=part.clips % 3) for part in parts]
    voted = predict(MeanModel(), parts, Accelerator(cpu=True))
    expected = (single.probabilities[:3] + single.probabilities[3:]) / 2
    torch.testing.assert_close(voted.probabilities, expected)
    assert voted.labels.tolist() == [0, 1, 2]
    assert voted.loss == pytest.approx(F.nll_loss(expected.log(), voted.labels).item(), rel=1e-5)


def test_without_mixup_it_is_the_smoothed_cross_entropy() -> None:
    one = batch([0, 1, 2, 3, 4, 5])
    loss = classification_loss(
        MeanModel(), one, label_smoothing=0.1, mixup=0.0, rng=np.random.default_rng(0)
    )
    logits = MeanModel()(one.tokens, one.padding_mask)
    target = F.one_hot(one.labels, 3) * 0.9 + 0.1 / 3
    torch.testing.assert_close(loss, -(target * logits.log_softmax(1)).sum(1).mean())


def test_mixup_of_waveforms_mixes_their_samples() -> None:
    """Samples are mixed ahead of a learned front-end; the longer clip of a pair is not masked."""
    front_end = WaveformFrontEnd(
        TokenConfig(1000, "waveform", waveform=WaveformConfig(num_filters=3, kernel=0.02))
    )
    shape = EncoderConfig(dim=8, layers=1, heads=2, dropout=0.0)
    model = Classifier(3, 3, shape, {"name": "none"}, front_end=front_end)
    torch.manual_seed(0)
    one = batch([0, 1, 2])._replace(tokens=torch.randn(3, 5, 10))
    one.tokens[one.padding_mask] = 0
    options: dict[str, Any] = {"label_smoothing": 0.0, "mixup": 0.4}
    loss = classification_loss(model, one, **options, rng=np.random.default_rng(2))
    rng = np.random.default_rng(2)
    share, other = float(rng.beta(0.4, 0.4)), rng.permutation(3)
    expected = 0.0
    for i, j in enumerate(other):
        long = 5 if 1 not in (i, j) or i != j else 2
        mixed = (share * one.tokens[i] + (1 - share) * one.tokens[j])[None, :long]
        scores = model(mixed).log_softmax(dim=1)[0]
        expected -= share * scores[one.labels[i]] + (1 - share) * scores[one.labels[j]]
    torch.testing.assert_close(loss, expected / 3)
