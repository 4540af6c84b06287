"""Dropout: probability, mean, gradient, and that evaluation is the identity."""

import pytest
import torch

from spaudio.filters.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share_and_mean_and_gradient(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.full((999, 1001), 2.0, dtype=dtype, requires_grad=True)  # no multiple of four
    y = Dropout(p)(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    kept = y != 0
    error = (p * (1 - p) / x.numel()) ** 0.5
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=5 * error)
    for axis in (0, 1):  # no row and no column is kept more often than by chance
        assert kept.double().mean(axis).sub(1 - p).abs().max() < 6 * (p * (1 - p) / 999) ** 0.5
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 2 / (1 - p)), rtol=8e-3, atol=0)
    torch.testing.assert_close(grad, y / 2)
    assert torch.equal(Dropout(p).eval()(x), x)


def test_the_seed_decides_and_calls_differ() -> None:
    x = torch.ones(100)
    torch.manual_seed(0)
    first, second = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.5)(x), first)
    assert not torch.equal(first, second)
