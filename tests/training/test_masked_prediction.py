"""Masked prediction: what is masked, that nothing of it is seen, and what the loss is."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.masked import MaskedPredictor
from spaudio.model.stem import ConvStem
from spaudio.tokens.batch import Batch
from spaudio.training.masked_prediction import MaskedPrediction, mask_spans

LENGTHS = (40, 17, 1, 3)


def batch() -> Batch:
    torch.manual_seed(0)
    padding = torch.arange(40) >= torch.tensor(LENGTHS)[:, None]
    tokens = torch.randn(4, 40, 4 * 12).masked_fill(padding[..., None], 0)
    return Batch(tokens, padding, torch.zeros(4), torch.arange(4))


def make_model() -> MaskedPredictor:
    torch.manual_seed(1)
    shape = EncoderConfig(dim=16, layers=1, heads=2, dropout=0.0)
    stem = ConvStem(12, 4, (4, 4, 8))
    return MaskedPredictor(Classifier(48, 2, shape, {"name": "depthwise"}, stem=stem))


@pytest.mark.parametrize(("share", "span"), [(0.5, 4), (0.9, 1), (0.95, 4), (0.3, 4), (0.75, 100)])
def test_a_share_of_the_spans_is_masked(share: float, span: int) -> None:
    padding = batch().padding_mask
    found = torch.stack(
        [mask_spans(padding, share, span, np.random.default_rng(i)) for i in range(300)]
    )
    assert not found[:, padding].any()
    counts = found.sum(dim=2)
    assert (counts >= 1).all()
    assert (counts[:, 2] == 1).all()
    if span < 17:  # of several spans at least one is seen
        assert (counts[:, :2] < torch.tensor(LENGTHS[:2])).all()
        assert counts[:, 0].double().mean() / 40 == pytest.approx(share, abs=0.12)
        inner = found[:, 0].float().mean(dim=0)  # no place is left out
        assert inner.min() > 0.5 * share
    # A run of masked tokens, but for the first and the last, is of whole spans.
    for mask in found[:, 0].tolist():
        runs = "".join("x" if m else " " for m in mask).split()
        assert all(len(run) % span == 0 for run in runs[1:-1])


@pytest.mark.parametrize("training", [True, False])
def test_masked_frames_are_not_seen(training: bool) -> None:
    one, model = batch(), make_model().train(training)
    masked = mask_spans(one.padding_mask, 0.5, 3, np.random.default_rng(0))
    other = torch.where(masked[..., None], 9 * torch.randn_like(one.tokens), one.tokens)
    with torch.no_grad():
        first, second = (model(t, one.padding_mask, masked) for t in (one.tokens, other))
        assert torch.equal(first, second)
        seen = one.tokens.clone()
        seen[0, int((~masked[0]).nonzero()[0])] += 1
        assert not torch.equal(model(seen, one.padding_mask, masked), first)


def test_a_clip_alone_is_predicted_as_in_a_padded_batch() -> None:
    one, model = batch(), make_model().eval()
    masked = mask_spans(one.padding_mask, 0.5, 3, np.random.default_rng(0))
    with torch.no_grad():
        whole = model(one.tokens, one.padding_mask, masked)
        for i, length in enumerate(LENGTHS):
            alone = model(*(part[i : i + 1, :length] for part in (*one[:2], masked)))
            torch.testing.assert_close(alone[0], whole[i, :length], rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_squared_error_of_masked_tokens_per_clip() -> None:
    one, model, objective = batch(), make_model().eval(), MaskedPrediction(0.5, 3)

    def by_hand(mask: Tensor) -> Tensor:
        error = (model(one.tokens, one.padding_mask, mask) - one.tokens) ** 2
        return torch.stack([error[i][mask[i]].mean() for i in range(4)]).mean()

    loss = objective.loss(model, one, np.random.default_rng(5))
    expected = by_hand(mask_spans(one.padding_mask, 0.5, 3, np.random.default_rng(5)))
    torch.testing.assert_close(loss, expected)
    cpu = Accelerator(cpu=True)
    again = mask_spans(one.padding_mask, 0.5, 3, np.random.default_rng(list(range(4))))
    expected = by_hand(again)
    found = objective.measure(model.train(), [one], cpu)  # by the kept statistics of batch norm
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert found.rank == (-found.loss,)
    twice = objective.measure(model, [one, one], cpu)
    assert twice.loss == pytest.approx(found.loss)
