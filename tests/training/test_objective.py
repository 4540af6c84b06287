import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.tokens.batch import Batch
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.waveform_filterbank import WaveformFilterbank
from spaudio.training.mixing import STYLE_BETA, Mixing
from spaudio.training.multilabel import MultiLabel
from spaudio.training.objective import Classification, Predictions


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
    def measure(batches: list[Batch]) -> Predictions:
        return Classification().measure(MeanModel(), batches, Accelerator(cpu=True))

    whole = measure([batch([0, 1, 2, 3, 4, 5])])
    parts = [batch([4, 0, 5]), batch([1, 3, 2])]
    mixed = measure(parts)
    torch.testing.assert_close(mixed.probabilities, whole.probabilities)
    assert mixed.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert mixed.loss == pytest.approx(whole.loss)
    hits = (whole.probabilities.argmax(dim=1) == whole.labels).sum().item()
    assert whole.accuracy == pytest.approx(hits / 6)
    # Items 0 and 3 are segments of clip 0, 1 and 4 of clip 1, 2 and 5 of clip 2.
    voted = measure([part._replace(clips=part.clips % 3) for part in parts])
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
    front_end = WaveformFilterbank(
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


def test_mixup_of_log_power_adds_sounds_of_the_same_loudness() -> None:
    torch.manual_seed(0)
    nats = torch.tensor([0.5, 1.0, 2.0])
    one = batch([0, 1, 2, 3, 4, 5])
    one = one._replace(tokens=3 * torch.randn(6, 5, 6))  # two frames of three bands each
    one.tokens[one.padding_mask] = 0
    mixed = Mixing(mixup=1.0, bands=3, nats=nats)(one, np.random.default_rng(0))
    assert mixed is not None
    loud, level = [], []
    for i, length in enumerate((~one.padding_mask).sum(dim=1).tolist()):
        power = (one.tokens[i] * nats.repeat(2)).exp()
        power[length:] = 0
        level.append(power[:length].mean().log())
        loud.append(power / power[:length].mean())
    for i, j in enumerate(mixed.other.tolist()):
        share, used = mixed.share[i], ~mixed.padding_mask[i]
        expected = (share * loud[i] + (1 - share) * loud[j])[used].log()
        found = mixed.tokens[i][used] * nats.repeat(2)
        between = share * level[i] + (1 - share) * level[j]  # the loudness of the mixture
        torch.testing.assert_close(found, expected + between)
        assert mixed.tokens[i][~used].eq(0).all()


def test_silence_has_the_least_power_in_a_mixture() -> None:
    one = batch([0, 3])._replace(tokens=torch.zeros(2, 5, 3))
    one.tokens[0, 2:] = -100  # in nats; the rest of both clips is noise
    mixed = [Mixing(mixup=1.0, bands=3, nats=torch.ones(3))(one, np.random.default_rng(s))
             for s in range(9)]  # fmt: skip
    alone = [each for each in mixed if each is not None and each.other.tolist() == [0, 1]]
    assert alone
    for each in alone:  # mixed with itself, a clip stays as it is, down to -120 dB
        torch.testing.assert_close(each.tokens[0, :2], one.tokens[0, :2])
        expected = math.log(1e-12) + math.log(2 / 5)
        torch.testing.assert_close(each.tokens[0, 2:], torch.full((3, 3), expected))


def test_shares_of_mixup_have_the_spread_of_their_distribution() -> None:
    one = batch([0, 1, 2, 3, 4, 5])
    mixed = [Mixing(mixup=1.0)(one, np.random.default_rng(seed)) for seed in range(300)]
    shares = torch.cat([each.share for each in mixed if each is not None])
    assert len(shares) == 1800
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    # Of a Beta distribution with both parameters a it is 1 / (8 a + 4); a is 0.3.
    assert shares.var().item() == pytest.approx(1 / 6.4, abs=0.01)


def test_mixed_targets_are_smoothed() -> None:
    one, mixing = batch([0, 1, 2, 3, 4, 5]), Mixing(mixup=1.0)
    loss = Classification(0.1, mixing).loss(MeanModel(), one, np.random.default_rng(1))
    mixed = mixing(one, np.random.default_rng(1))
    assert mixed is not None
    # A mix lasts as long as the longer clip.
    assert torch.equal(mixed.padding_mask, one.padding_mask & one.padding_mask[mixed.other])
    scores = MeanModel()(mixed.tokens, mixed.padding_mask).log_softmax(dim=1)
    smooth = F.one_hot(one.labels, 3) * 0.9 + 0.1 / 3
    share = mixed.share[:, None]
    target = share * smooth + (1 - share) * smooth[mixed.other]
    torch.testing.assert_close(loss, -(target * scores).sum(dim=1).mean())


@pytest.mark.parametrize("objective", [Classification, MultiLabel])
def test_the_loss_is_that_of_restyled_clips(
    objective: type[Classification] | type[MultiLabel],
) -> None:
    labels = LABELS if objective is Classification else torch.eye(3)[LABELS]
    one, mixing = batch([0, 1, 2, 3, 4, 5], labels), Mixing(mixstyle=1.0, bands=3)
    found = objective(mixing=mixing).loss(MeanModel(), one, np.random.default_rng(0))
    styled = mixing.restyle(one, np.random.default_rng(0))
    expected = objective().loss(MeanModel(), styled, np.random.default_rng(0))
    torch.testing.assert_close(found, expected)
    assert found != objective().loss(MeanModel(), one, np.random.default_rng(0))


def test_each_kind_of_mixing_is_as_frequent_as_set() -> None:
    one = batch([0, 1, 2, 3, 4, 5])
    mixing, number = Mixing(mixup=0.3, cutmix=0.2, mixstyle=0.4), 1000
    styled = sum(mixing.restyle(one, np.random.default_rng(s)) is not one for s in range(number))
    found = [mixing(one, np.random.default_rng(seed)) for seed in range(number)]
    mixed = [each for each in found if each is not None]
    cut = [
        each
        for each in mixed
        if ((each.tokens == one.tokens) | (each.tokens == one.tokens[each.other])).all()
    ]
    assert styled / number == pytest.approx(0.4, abs=0.06)
    assert len(mixed) / number == pytest.approx(0.5, abs=0.06)
    assert len(cut) / number == pytest.approx(0.2, abs=0.05)


def test_cutmix_takes_tokens_of_one_other_clip_and_keeps_padding() -> None:
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
        assert mixed.tokens[i, length:].eq(one.tokens[i, length:]).all()  # padding stays


def test_the_share_of_cutmix_is_what_is_left_of_the_clip() -> None:
    one = batch([0, 1, 2, 3, 4, 5])
    for seed in range(9):
        mixed = Mixing(cutmix=1.0)(one, np.random.default_rng(seed))
        assert mixed is not None
        for i, j in enumerate(mixed.other.tolist()):
            if i == j:
                continue
            length = int((~one.padding_mask[i]).sum())
            differs = (mixed.tokens[i] != one.tokens[i]).any(dim=1)[:length]
            taken = differs.nonzero().flatten().tolist()
            assert len(taken) == round(float(1 - mixed.share[i]) * length)
            assert not taken or not one.padding_mask[j, taken[-1]]  # none of padding
            assert not taken or taken[-1] - taken[0] == len(taken) - 1  # one span


def test_cutmix_counts_the_tokens_that_are_pooled() -> None:
    """Here: of the mixture, those whose first feature is above -0.5."""
    one = batch([0, 1, 2, 3, 4, 5])
    mixing = Mixing(cutmix=1.0, pooled=lambda tokens, padding: ~padding & (tokens[..., 0] > -0.5))
    mixed = mixing(one, np.random.default_rng(0))
    assert mixed is not None
    pooled = ~mixed.padding_mask & (mixed.tokens[..., 0] > -0.5)
    own = pooled & (mixed.tokens == one.tokens).all(dim=2)
    torch.testing.assert_close(mixed.share, own.sum(dim=1) / pooled.sum(dim=1))
    assert len(mixed.share.unique()) > 3


def test_mixstyle_gives_part_of_another_clips_statistics() -> None:
    """In each band; the course over time stays, and padding is zero."""
    torch.manual_seed(0)
    one = batch([0, 1, 2, 3, 4, 5])
    tokens = 2 * torch.randn(6, 5, 6) + torch.randn(6, 1, 1)  # two frames of three bands each
    tokens[one.padding_mask] = 0
    one = one._replace(tokens=tokens)
    mixing = Mixing(mixstyle=1.0, bands=3)
    styled = mixing.restyle(one, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rng.random()
    other, draws = rng.permutation(6), rng.beta(STYLE_BETA, STYLE_BETA, 6)
    frames, after = (
        [x[i][~one.padding_mask[i]].reshape(-1, 3) for i in range(6)]
        for x in (one.tokens, styled.tokens)
    )
    for i, j in enumerate(other):
        share = max(draws[i], 1 - draws[i])
        for part in (torch.mean, partial(torch.std, correction=0)):
            expected = share * part(frames[i], 0) + (1 - share) * part(frames[j], 0)
            torch.testing.assert_close(part(after[i], 0), expected, atol=1e-4, rtol=1e-4)
        shape, course = ((f - f.mean(0)) / f.std(0) for f in (frames[i], after[i]))
        torch.testing.assert_close(course, shape, atol=1e-3, rtol=1e-3)
    assert not torch.equal(styled.tokens, one.tokens)
    # Dither, far below the least spread, is not amplified to the spread of another clip.
    i = next(i for i in range(2, 6) if other[i] != i)
    share, dither = max(draws[i], 1 - draws[i]), 1e-3 * torch.randn(5, 6)
    one.tokens[i] = dither
    quiet = mixing.restyle(one, np.random.default_rng(0)).tokens[i]
    after_spread, spread, spread_of_other = (
        x.view(-1, 3).std(0, correction=0) for x in (quiet, dither, frames[other[i]])
    )
    expected = spread / 0.03 * (share * 0.03 + (1 - share) * spread_of_other)
    torch.testing.assert_close(after_spread, expected, atol=0, rtol=0.01)
    assert styled.tokens[one.padding_mask].eq(0).all()
    assert Mixing(bands=3).restyle(one, rng) is one


def test_a_click_in_silence_is_mixed_without_overflow() -> None:
    tokens = torch.full((4, 3000, 1), -1.0)
    tokens[0, 7] = 1
    tokens[1:] = 2 * torch.randn(3, 3000, 1, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(4, 3000, dtype=torch.bool)
    batch = Batch(tokens, padding, torch.zeros(4, dtype=torch.long), torch.arange(4))
    mixing = Mixing(mixup=1, mixstyle=1, nats=torch.tensor([5.0]))
    for step in range(20):
        rng = np.random.default_rng(step)
        assert mixing(mixing.restyle(batch, rng), rng).tokens.isfinite().all()
