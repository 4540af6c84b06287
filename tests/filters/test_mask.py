"""The transformer that predicts a token-adaptive mask."""

import pytest
import torch
from torch import Tensor, nn

from spaudio.filters import AdaptiveFilterBank, record_masks
from spaudio.filters.mask import MaskPredictor
from spaudio.filters.transformer import TransformerLayer
from tests.filters.cases import padding_mask


def predictor(causal: bool, layers: int = 2) -> MaskPredictor:
    torch.manual_seed(0)
    return MaskPredictor(6, 5, width=8, layers=layers, heads=2, causal=causal).double()


def tokens() -> Tensor:
    return torch.randn(3, 12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_the_book(mask: MaskPredictor, x: Tensor, padding: Tensor | None) -> Tensor:
    """The predictor with explicit softmax, for one clip, one head and one query at a time."""
    result = []
    for clip in range(len(x)):
        real = len(x[clip]) if padding is None else int((~padding[clip]).sum())
        h = mask.embed(x[clip])
        for layer in mask.layers:
            assert isinstance(layer, TransformerLayer)
            q, k, v = layer.attention.qkv(layer.attention_norm(h)).chunk(3, dim=-1)
            heads = []
            for a, b, c in zip(q.chunk(2, -1), k.chunk(2, -1), v.chunk(2, -1), strict=True):
                a, b = turn(a), turn(b)
                rows = []
                for t in range(len(a)):
                    seen = [s for s in range(real) if s <= t or not mask.causal]
                    if t >= real:
                        seen.append(t)
                    weights = torch.softmax(b[seen] @ a[t] / 4**0.5, dim=0)
                    rows.append(weights @ c[seen])
                heads.append(torch.stack(rows))
            h = h + layer.attention.out(torch.cat(heads, dim=-1))
            norm, up, _, down = layer.feed_forward
            h = h + down(nn.functional.gelu(up(norm(h))))
        result.append(torch.sigmoid(mask.open(mask.norm(h))))
    return torch.stack(result)


def turn(x: Tensor) -> Tensor:
    """Rotary positions as complex numbers, for heads of width 4."""
    speed = torch.tensor([1.0, 10_000**-0.5], dtype=torch.float64)
    angle = torch.outer(torch.arange(len(x), dtype=torch.float64), speed)
    turned = torch.complex(x[:, :2], x[:, 2:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=-1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_equals_attention_by_the_book(causal: bool, padded: bool) -> None:
    mask, x = predictor(causal), tokens()
    padding = padding_mask(3, 12) if padded else None
    torch.testing.assert_close(mask(x, padding), by_the_book(mask, x, padding))


def test_masks_are_recorded_and_finite_for_padding_alone() -> None:
    filter = AdaptiveFilterBank(6, 5, 4, mask_width=8, mask_heads=2)
    x = torch.randn(2, 7, 6, requires_grad=True)
    model = nn.ModuleDict({"layer": filter})
    assert not filter.mask.open.bias.any()
    # Of several calls, the last is recorded.
    masks = record_masks(model, lambda: (filter(2 * x), filter(x)))
    assert torch.equal(masks["layer"], filter.token_mask(x).detach())
    assert not filter.mask._forward_hooks
    y = filter(x, torch.tensor([[True] * 7, [False] * 7]))
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert torch.equal(y[0], x[0])
