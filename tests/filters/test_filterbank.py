"""The function ``filterbank``: its semantics, independent of the backend."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spaudio.filters import filterbank
from tests.filters.cases import ACTIVATIONS, padding_mask, spread, windows

SCALES = {"one": [(5, 4)], "odd": [(5, 3)], "several": [(3, 1), (4, 6), (2, 3)], "long": [(3, 20)]}
GAINS = ["shared", "per_dim", "per_token"]


def draw(scales: str, gains: str) -> tuple[Tensor, list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    filters = sum(m for m, _ in SCALES[scales])
    shape = {"shared": (filters,), "per_dim": (6, filters), "per_token": (2, 11, filters)}[gains]
    return normal(2, 11, 6), [normal(m, k) for m, k in SCALES[scales]], normal(*shape)


@pytest.mark.parametrize(
    ("scales", "causal", "activation", "gains"),
    spread([*SCALES] * 5, [True, False], list(ACTIVATIONS), GAINS),
)
def test_equals_loops(scales: str, causal: bool, activation: str, gains: str) -> None:
    x, kernels, weights = draw(scales, gains)
    features = torch.cat(
        [windows(x, k.shape[1], causal) @ k.T for k in kernels], dim=-1
    )  # (batch, tokens, dim, M)
    factor = weights.unsqueeze(2) if gains == "per_token" else weights
    expected = (ACTIVATIONS[activation](features) * factor).sum(-1)
    for backend in ("auto", "reference"):
        y = filterbank(x, kernels, weights, causal=causal, activation=activation, backend=backend)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_one_tensor_is_one_scale_and_scales_add_up() -> None:
    x, kernels, gains = draw("one", "shared")
    assert torch.equal(filterbank(x, kernels[0], gains), filterbank(x, kernels, gains))
    x, kernels, gains = draw("several", "shared")
    parts = torch.split(gains, [k.shape[0] for k in kernels])
    pieces = [filterbank(x, k, g) for k, g in zip(kernels, parts, strict=True)]
    torch.testing.assert_close(filterbank(x, kernels, gains), torch.stack(pieces).sum(0))


def test_taps_by_example() -> None:
    x = torch.arange(1.0, 7).reshape(1, 6, 1)
    # Centred kernels of even size read one token more from the future.
    for size, seen in ((1, [2]), (2, [2, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])):
        y = filterbank(x, torch.ones(1, size), torch.ones(1))
        assert y[0, 1, 0] == sum(seen)
    # Causal taps end at the token.
    y = filterbank(x, torch.tensor([[0.0, 10.0, 1.0]]), torch.ones(1), causal=True)
    assert y.flatten().tolist() == [1, 12, 23, 34, 45, 56]


def test_dimensions_do_not_mix() -> None:
    x, kernels, gains = draw("one", "shared")
    y = filterbank(x, kernels, gains)
    for d in range(x.shape[-1]):
        alone = filterbank(x[..., d : d + 1], kernels, gains)
        torch.testing.assert_close(y[..., d : d + 1], alone)


def test_padding_counts_as_zeros_and_inputs_are_not_modified() -> None:
    x, kernels, gains = draw("several", "shared")
    mask = padding_mask(2, 11)
    noisy = x.masked_fill(mask.unsqueeze(-1), math.inf)
    copies = [value.clone() for value in (noisy, gains, *kernels)]
    y = filterbank(noisy, kernels, gains, padding_mask=mask)
    assert all(torch.equal(a, b) for a, b in zip(copies, (noisy, gains, *kernels), strict=True))
    inside = ~mask.unsqueeze(-1)
    torch.testing.assert_close(y, filterbank(x * inside, kernels, gains) * inside)
    assert (y[mask] == 0).all()


def test_short_and_empty_input() -> None:
    for batch, tokens in ((2, 0), (2, 1), (2, 2), (0, 4)):
        y = filterbank(torch.randn(batch, tokens, 3), torch.randn(4, 5), torch.randn(4))
        assert y.shape == (batch, tokens, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, r"x must be .*\(2, 3\)"),
        ({"x": torch.zeros(2, 3, 4, dtype=torch.long)}, "x must be floating point.*int64"),
        ({"kernels": torch.zeros(5)}, r"kernels must be \(M, K\).*\(5,\)"),
        ({"kernels": []}, "kernels must be"),
        ({"kernels": torch.zeros(5, 0)}, r"kernels must be.*\(5, 0\)"),
        ({"gains": torch.zeros(6)}, r"gains must have one of the shapes.*\(6,\)"),
        ({"gains": torch.zeros(3, 5)}, r"gains must have one of the shapes.*\(3, 5\)"),
        ({"activation": "tanh"}, "activation must be one of.*'tanh'"),
        ({"padding_mask": torch.zeros(2, 7)}, "padding_mask must be boolean"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "x": torch.zeros(2, 7, 4),
        "kernels": torch.zeros(5, 3),
        "gains": torch.zeros(5),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        filterbank(**arguments)  # type: ignore[arg-type]
