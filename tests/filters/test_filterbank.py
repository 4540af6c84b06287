"""The function ``filterbank``: its semantics, whatever computes it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spaudio.filters import filterbank
from tests.filters.cases import ACTIVATIONS, padding_mask, windows

SCALES = {"one": [(5, 4)], "odd": [(5, 3)], "several": [(3, 1), (4, 6), (2, 3)], "long": [(3, 20)]}


def draw(scales: str, gains: str) -> tuple[Tensor, list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    filters = sum(m for m, _ in SCALES[scales])
    shape = {"shared": (filters,), "per_dim": (6, filters), "per_token": (2, 11, filters)}[gains]
    return normal(2, 11, 6), [normal(m, k) for m, k in SCALES[scales]], normal(*shape)


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("gains", ["shared", "per_dim", "per_token"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_loops(scales: str, gains: str, causal: bool, activation: str) -> None:
    x, kernels, weights = draw(scales, gains)
    y = filterbank(x, kernels, weights, causal=causal, activation=activation)
    features = torch.cat(
        [windows(x, k.shape[1], causal) @ k.T for k in kernels], dim=-1
    )  # (batch, tokens, dim, M)
    spread = weights.unsqueeze(2) if gains == "per_token" else weights
    reference = (ACTIVATIONS[activation](features) * spread).sum(-1)
    torch.testing.assert_close(y, reference, rtol=1e-12, atol=1e-12)


def test_one_tensor_is_one_scale() -> None:
    x, kernels, gains = draw("one", "shared")
    assert torch.equal(filterbank(x, kernels[0], gains), filterbank(x, kernels, gains))


def test_scales_add_up() -> None:
    x, kernels, gains = draw("several", "shared")
    parts = torch.split(gains, [k.shape[0] for k in kernels])
    whole = filterbank(x, kernels, gains)
    pieces = [filterbank(x, k, g) for k, g in zip(kernels, parts, strict=True)]
    torch.testing.assert_close(whole, torch.stack(pieces).sum(0))


def test_centred_reads_one_more_from_the_future_where_even() -> None:
    x = torch.arange(1.0, 7).reshape(1, 6, 1)
    for size, seen in ((1, [2]), (2, [2, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])):
        y = filterbank(x, torch.ones(1, size), torch.ones(1))
        assert y[0, 1, 0] == sum(seen)


def test_causal_taps_end_at_the_token() -> None:
    x = torch.arange(1.0, 7).reshape(1, 6, 1)
    y = filterbank(x, torch.tensor([[0.0, 10.0, 1.0]]), torch.ones(1), causal=True)
    assert y.flatten().tolist() == [1, 12, 23, 34, 45, 56]


def test_dimensions_do_not_mix() -> None:
    x, kernels, gains = draw("one", "shared")
    y = filterbank(x, kernels, gains)
    for d in range(x.shape[-1]):
        alone = filterbank(x[..., d : d + 1], kernels, gains)
        torch.testing.assert_close(y[..., d : d + 1], alone)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_counts_as_zeros_and_comes_out_as_zeros(causal: bool) -> None:
    x, kernels, gains = draw("several", "shared")
    mask = padding_mask(2, 11)
    noisy = x.masked_fill(mask.unsqueeze(-1), math.inf)
    zeroed = x.masked_fill(mask.unsqueeze(-1), 0)
    y = filterbank(noisy, kernels, gains, causal=causal, padding_mask=mask)
    inside = ~mask.unsqueeze(-1)
    reference = filterbank(zeroed, kernels, gains, causal=causal) * inside
    torch.testing.assert_close(y, reference)
    assert (y[mask] == 0).all()


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_short_and_empty_input(tokens: int) -> None:
    y = filterbank(torch.randn(2, tokens, 3), torch.randn(4, 5), torch.randn(4))
    assert y.shape == (2, tokens, 3)
    assert filterbank(torch.randn(0, 4, 3), torch.randn(4, 5), torch.randn(4)).shape == (0, 4, 3)


def test_layout_of_memory_does_not_matter() -> None:
    x, kernels, gains = draw("one", "shared")
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    flipped = x.flip(1).contiguous().flip(1)
    assert not strided.is_contiguous()
    reference = filterbank(x, kernels, gains)
    torch.testing.assert_close(filterbank(strided, kernels, gains), reference)
    torch.testing.assert_close(filterbank(flipped, kernels, gains), reference)


def test_inputs_are_left_alone() -> None:
    x, kernels, gains = draw("one", "shared")
    copies = x.clone(), kernels[0].clone(), gains.clone()
    filterbank(x, kernels, gains, padding_mask=padding_mask(2, 11))
    assert torch.equal(x, copies[0])
    assert torch.equal(kernels[0], copies[1])
    assert torch.equal(gains, copies[2])


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
