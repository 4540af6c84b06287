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
from spaudio.training.mixing import Mixing
from spaudio.training.objective import Classification, predict


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


def test_predictions_come_in_the_order_of_the_clips_and_segments_vote() -> None:
    cpu = Accelerator(cpu=True)
    whole = predict(MeanModel(), [batch([0, 1, 2, 3, 4, 5])], cpu)
    parts = [batch([4, 0, 5]), batch([1, 3, 2])]
    mixed = predict(MeanModel(), parts, cpu)
    torch.testing.assert_close(mixed.probabilities, whole.probabilities)
    assert mixed.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert mixed.loss == pytest.approx(whole.loss)
    hits = (whole.probabilities.argmax(dim=1) == whole.labels).sum().item()
    assert whole.accuracy == pytest.approx(hits / 6)
    # Items 0 and 3 are segments of clip 0, 1 and 4 of clip 1, 2 and 5 of clip 2.
    voted = predict(MeanModel(), [part._replace(clips=part.clips % 3) for part in parts], cpu)
    expected = (whole.probabilities[:3] + whole.probabilities[3:]) / 2
    torch.testing.assert_close(voted.probabilities, expected)
    assert voted.labels.tolist() == [0, 1, 2]
    assert voted.loss == pytest.approx(F.nll_loss(expected.log(), voted.labels).item(), rel=1e-5)


def test_without_mixing_it_is_the_smoothed_cross_entropy() -> None:
    one = batch([0, 1, 2, 3, 4, 5])
    loss = Classification(0.1).loss(MeanModel(), one, np.random.default_rng(0))
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
    mixing = Mixing(mixup=1.0)
    loss = Classification(mixing=mixing).loss(model, one, np.random.default_rng(2))
    mixed = mixing(one, np.random.default_rng(2))
    assert mixed is not None
    expected = torch.zeros(())
    for i, j in enumerate(mixed.other.tolist()):
        share, long = mixed.share[i], 5 if 1 not in (i, j) or i != j else 2
        tokens = (share * one.tokens[i] + (1 - share) * one.tokens[j])[None, :long]
        scores = model(tokens).log_softmax(dim=1)[0]
        expected -= share * scores[one.labels[i]] + (1 - share) * scores[one.labels[j]]
    torch.testing.assert_close(loss, expected / 3)


def test_cutmix_exchanges_one_span_and_counts_it() -> None:
    torch.manual_seed(0)
    one = batch([0, 1, 2, 3, 4, 5])
    mixed = Mixing(cutmix=1.0)(one, np.random.default_rng(1))
    assert mixed is not None
    assert mixed.share.min() < 1
    for i, j in enumerate(mixed.other.tolist()):
        length = int((~one.padding_mask[i]).sum())
        own = (mixed.tokens[i] == one.tokens[i]).all(dim=1)
        taken = (mixed.tokens[i] == one.tokens[j]).all(dim=1)
        assert (own | taken).all()
        assert int((~own)[:length].sum()) <= round(float(1 - mixed.share[i]) * length)
        assert mixed.tokens[i, length:].eq(one.tokens[i, length:]).all()  # padding stays
