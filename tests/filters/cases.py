"""Every filter, small, and its definition with loops in float64."""

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, product
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.filters import AdaptiveFilterBank, HaarFilter, TokenFilter, find_filters, make_filter

DIM = 6
CASES: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "bank-even": {"name": "bank", "num_filters": 7, "kernel_size": 4},
    "bank-odd": {"name": "bank", "num_filters": 7, "kernel_size": 5},
    "bank-gelu": {"name": "bank", "num_filters": 7, "kernel_size": 3, "activation": "gelu"},
    "bank-identity": {"name": "bank", "num_filters": 7, "kernel_size": 3, "activation": "identity"},
    "bank-per-dim": {"name": "bank", "num_filters": 7, "kernel_size": 4, "gains": "per_dim"},
    "multiscale": {"name": "multiscale", "scales": [(5, 2), (4, 5), (3, 1)]},
    "multiscale-per-dim": {"name": "multiscale", "scales": [(5, 2), (4, 5)], "gains": "per_dim"},
    "adaptive": {
        "name": "adaptive",
        "num_filters": 7,
        "kernel_size": 4,
        "mask_width": 8,
        "mask_heads": 2,
    },
    "adaptive-multiscale": {
        "name": "adaptive",
        "scales": [(4, 2), (4, 5)],
        "mask_width": 8,
        "mask_heads": 2,
        "mask_layers": 2,
    },
    "fir-even": {"name": "fir", "num_filters": 7, "kernel_size": 4},
    "fir-odd-per-dim": {"name": "fir", "num_filters": 7, "kernel_size": 5, "gains": "per_dim"},
    "depthwise-even": {"name": "depthwise"},
    "depthwise-odd": {"name": "depthwise", "kernel_size": 5},
    "haar": {"name": "haar", "levels": 3},
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda value: value.clamp(min=0),
    "gelu": lambda value: value * (1 + torch.erf(value / 2**0.5)) / 2,
    "identity": lambda value: value,
}


def spread(items: Iterable[Any], *options: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Gives each item one combination of the options, all combinations in turn."""
    return [(item, *chosen) for item, chosen in zip(items, cycle(product(*options)), strict=False)]


def build(case: str, *, causal: bool, dtype: torch.dtype = torch.float32) -> TokenFilter:
    """Builds the filter of a case with fixed weights."""
    torch.manual_seed(0)
    return make_filter(dim=DIM, causal=causal, **CASES[case]).to(dtype)


def padding_mask(batch: int, tokens: int) -> Tensor:
    """Padding after which the first clip is whole and the last has one token."""
    lengths = torch.linspace(tokens, 1, batch).long()
    return torch.arange(tokens) >= lengths.unsqueeze(1)


def windows(x: Tensor, kernel_size: int, causal: bool) -> Tensor:
    """Inputs of each tap of a kernel: (batch, tokens, dim, K), zero outside the sequence."""
    first = 1 - kernel_size if causal else -((kernel_size - 1) // 2)
    seen = x.new_zeros(*x.shape, kernel_size)
    for t in range(x.shape[1]):
        for k in range(kernel_size):
            if 0 <= t + first + k < x.shape[1]:
                seen[:, t, :, k] = x[:, t + first + k]
    return seen


def expected(filter: TokenFilter, x: Tensor, mask: Tensor | None) -> Tensor:
    """Expected output of the filter for (batch, tokens, dim), in float64."""
    weights = {name: value.detach().double() for name, value in filter.state_dict().items()}
    real = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else ~mask
    inside = torch.where(real.unsqueeze(-1), x.double(), 0)
    if filter.name == "none":
        return x.double()
    if isinstance(filter, HaarFilter):
        added = torch.zeros_like(inside)
        for d in range(DIM // 2, DIM):
            level = 1 + filter.levels * (d - DIM // 2) // (DIM - DIM // 2)
            seen = windows(inside, 2**level, filter.causal)
            added[..., d] = seen[..., d, :].mean(-1) - inside[..., d]
    elif filter.name == "depthwise":
        seen = windows(inside, weights["kernels"].shape[1], filter.causal)
        added = (seen * weights["kernels"]).sum(-1)
    else:
        added = expected_bank(filter, weights, inside, mask)
    return x.double() + torch.where(real.unsqueeze(-1), added, 0)


def expected_bank(
    filter: TokenFilter, weights: dict[str, Tensor], x: Tensor, mask: Tensor | None
) -> Tensor:
    """Expected filtered signal of a bank of any kind, fir included."""
    gains = next(value for name, value in weights.items() if name.endswith("gains"))
    if isinstance(filter, AdaptiveFilterBank):
        # test_mask.py tests the mask.
        with torch.no_grad():
            gains = gains * filter.double().token_mask(x, mask)
        gains = gains.unsqueeze(2)
    kernels = [value for name, value in weights.items() if "kernels" in name]
    activation = ACTIVATIONS[filter.config().get("activation", "identity")]
    features = [
        torch.stack([(windows(x, k.shape[1], filter.causal) * row).sum(-1) for row in k], dim=-1)
        for k in kernels
    ]
    return (activation(torch.cat(features, dim=-1)) * gains).sum(-1)


def open_gains(model: nn.Module) -> None:
    """Sets non-zero weights in all filters that were inserted into a model."""
    torch.manual_seed(5)
    for parameter in find_filters(model).parameters():
        nn.init.normal_(parameter, std=0.3)
