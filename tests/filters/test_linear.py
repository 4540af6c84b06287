"""The linear layer equals torch's in values and derivatives, and to the bit without gradients."""

import pytest
import torch
from torch import Tensor, nn

from spaudio.filters.linear import FEWEST, Linear


def test_values_and_derivatives_are_those_of_torch() -> None:
    torch.manual_seed(0)
    for shape, bias in (((FEWEST, 24), True), ((3, FEWEST, 24), False), ((2, 3, 24), True)):
        layer = Linear(24, 40, bias=bias)
        x = torch.randn(shape, requires_grad=True)
        leaves = [x, *layer.parameters()]

        def derivatives(y: Tensor, leaves: list[Tensor] = leaves) -> list[Tensor]:
            first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
            total = torch.stack([f.square().sum() for f in first]).sum()
            return [y, *first, *torch.autograd.grad(total, leaves)]

        expected = derivatives(nn.functional.linear(x, layer.weight, layer.bias))
        for a, b in zip(derivatives(layer(x)), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.detach().abs().max()))
        plain = nn.functional.linear(x, layer.weight, layer.bias)
        with torch.no_grad():
            assert torch.equal(layer(x), plain)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16


def test_a_wrong_width_is_named() -> None:
    layer = Linear(24, 40)
    with pytest.raises(RuntimeError, match=f"{FEWEST}x23 and 24x40"):
        layer(torch.randn(FEWEST, 23))
