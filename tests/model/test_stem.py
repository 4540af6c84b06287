import copy

import pytest
import torch
from torch import nn

from spaudio.errors import ConfigError
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.stem import ConvStem, MaskedBatchNorm
from spaudio.tokens.config import TokenConfig

LENGTHS = (11, 7, 3, 1)


def padded(stack: int, bands: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(11) >= torch.tensor(LENGTHS).unsqueeze(1)
    tokens = torch.randn(4, 11, stack * bands).masked_fill(mask.unsqueeze(-1), 0)
    return tokens, mask


@pytest.mark.parametrize(("stack", "bands"), [(1, 40), (2, 13), (8, 40)])
def test_a_clip_gives_the_same_logits_alone_and_in_a_padded_batch(stack: int, bands: int) -> None:
    torch.manual_seed(0)
    stem = ConvStem(bands, stack, [6, 12, 16])
    shape = EncoderConfig(dim=16, layers=2, heads=2, dropout=0.0, drop_path=0.5)
    bank = {"name": "bank", "num_filters": 4}
    model = Classifier(stack * bands, 5, shape, bank, "attention", None, stem)
    tokens, mask = padded(stack, bands)
    model(tokens, mask)  # batch statistics that are not those of the start
    model.eval()
    batched = model(tokens, mask)
    loud = tokens.masked_fill(mask.unsqueeze(-1), float("nan"))
    assert torch.equal(model(loud, mask), batched)
    alone = [model(tokens[i : i + 1, :length]) for i, length in enumerate(LENGTHS)]
    torch.testing.assert_close(batched, torch.cat(alone), rtol=0, atol=1e-5)


def test_batch_statistics_do_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    tokens, mask = padded(4, 20)
    one = ConvStem(20, 4, [4, 6, 8])
    other = copy.deepcopy(one)
    one(tokens, mask)
    loud = torch.cat([tokens, torch.zeros(4, 3, 80)], dim=1)
    other(loud, torch.cat([mask, torch.ones(4, 3, dtype=torch.bool)], dim=1))
    for before, after in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(before, after)


def test_running_statistics_are_those_of_torch() -> None:
    ours, theirs, x = MaskedBatchNorm(5), nn.BatchNorm1d(5), 3 * torch.randn(3, 7, 4, 5) + 1
    ours(x)
    theirs(x.reshape(-1, 5))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_the_evaluation_normalises_by_running_statistics_and_activates() -> None:
    ours, theirs = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    for value in (*ours.parameters(), *ours.buffers()):
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 2)
    theirs.load_state_dict(ours.state_dict())
    x = 3 * torch.randn(3, 7, 4, 5) + 1
    for training in (False, True):
        expected = nn.functional.gelu(theirs.train(training)(x.reshape(-1, 5))).reshape(x.shape)
        torch.testing.assert_close(ours.train(training)(x), expected, rtol=1e-4, atol=1e-5)


def test_a_single_value_has_no_variance_and_takes_that_of_earlier_batches() -> None:
    stem = ConvStem(8, 8, (4, 4, 4)).train()
    stem(torch.randn(4, 3, 64))
    before = [buffer.clone() for buffer in stem.buffers() if buffer.is_floating_point()]
    stem(torch.randn(1, 1, 64)).sum().backward()
    last = [one for one in stem.modules() if isinstance(one, MaskedBatchNorm)][-1]
    assert torch.equal(last.running_var, before[-1])  # type: ignore[arg-type]


def test_gradients_are_right_where_a_single_band_is_left() -> None:
    tokens, stem = torch.randn(6, 9, 16), ConvStem(4, 4, [4, 4, 4])
    found = []
    for half in (False, True, True, True):
        junk = [torch.full((10**digits,), 3e30) for digits in range(1, 6)]
        del junk  # the memory that gradients come to lie in
        stem.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            stem(tokens).float().square().mean().backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in stem.parameters()]))
    for rounded in found[1:]:
        assert (rounded - found[0]).norm() < 0.2 * found[0].norm()


def test_the_receptive_field_is_that_of_the_gradient() -> None:
    stem = ConvStem(8, 4, [3, 4, 5]).eval()
    tokens = torch.randn(1, 9, 32, requires_grad=True)
    stem(tokens)[0, 4].sum().backward()
    assert tokens.grad is not None
    seen = tokens.grad.reshape(36, 8).abs().sum(dim=1).nonzero().flatten()
    assert seen[-1] - seen[0] + 1 == stem.receptive_field


def test_a_stack_that_convolutions_cannot_halve_is_refused() -> None:
    with pytest.raises(ConfigError, match="power of two up to 8"):
        TokenConfig(stem="conv", stack=3)
    with pytest.raises(ValueError, match="power of two"):
        ConvStem(40, 16)
