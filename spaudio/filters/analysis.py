"""Filters over audio tokens in physical units: milliseconds, and Hz of modulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spaudio.filters.adaptive import AdaptiveFilterBank
from spaudio.filters.base import TokenFilter


def receptive_field_ms(filter: TokenFilter, hop_seconds: float) -> tuple[float, float]:
    """How far a filter sees.

    Args:
        filter: The filter.
        hop_seconds: Seconds from one token to the next.

    Returns:
        Milliseconds to the left and to the right of a token; ``math.inf`` for the whole sequence.

    Raises:
        ValueError: If the hop is not positive.
    """
    left, right = filter.receptive_field
    hop_ms = 1000 * check_hop(hop_seconds)
    return left * hop_ms, right * hop_ms


def modulation_response(
    filter: TokenFilter, hop_seconds: float, n_fft: int = 512
) -> tuple[Tensor, Tensor]:
    """Frequency response over modulation frequency: how fast a dimension rises and falls in time.

    Args:
        filter: The filter.
        hop_seconds: Seconds from one token to the next.
        n_fft: Number of frequencies around the circle.

    Returns:
        Frequencies in Hz (n_fft // 2 + 1,), up to half the token rate, and the complex response
        (M, n_fft // 2 + 1).

    Raises:
        ValueError: If the hop is not positive or ``n_fft`` is below 1.
    """
    rate = 1 / check_hop(hop_seconds)
    response = filter.frequency_response(n_fft)
    return torch.arange(n_fft // 2 + 1) * (rate / n_fft), response


def centre_frequency(response: Tensor) -> Tensor:
    """Centroid of the power of each kernel, by which plots sort them.

    Args:
        response: Complex (M, bins), from 0 to 1/2 cycle/token.

    Returns:
        (M,) in cycles/token; 0 for a kernel without power.
    """
    power = response.abs().square()
    frequency = torch.linspace(0, 0.5, power.shape[-1], dtype=power.dtype)
    total = power.sum(-1)
    return (power @ frequency) / total.clamp_min(torch.finfo(power.dtype).tiny)


def record_masks(model: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """Masks of all token-adaptive filters in a model while something runs it.

    Args:
        model: Any module that holds filters.
        run: Runs the model, for instance on one clip.

    Returns:
        (batch, tokens, M) by the filter's name in the model, of its last call.
    """
    masks: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, arguments: object, output: Tensor) -> None:
            masks[name] = output.detach()

        return hook

    filters = [(n, m) for n, m in model.named_modules() if isinstance(m, AdaptiveFilterBank)]
    hooks = [filter.mask.register_forward_hook(keep(name)) for name, filter in filters]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return masks


def describe(filter: TokenFilter, hop_seconds: float | None = None) -> str:
    """A filter in one line: name, parameters, receptive field in tokens and, given a hop, in ms.

    Args:
        filter: The filter.
        hop_seconds: Seconds from one token to the next, or None.

    Raises:
        ValueError: If the hop is not positive.
    """
    fields = [f"{_extent(filter.receptive_field)} tokens"]
    if hop_seconds is not None:
        fields.append(f"{_extent(receptive_field_ms(filter, hop_seconds))} ms")
    kind = "causal" if filter.causal else "non-causal"
    return f"{filter.name}: {kind}, {filter.num_parameters} parameters, sees {', '.join(fields)}"


def check_hop(hop_seconds: float) -> float:
    """The hop, if it is a positive number of seconds.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < hop_seconds < math.inf:
        raise ValueError(f"hop_seconds must be positive seconds a token; got {hop_seconds}")
    return hop_seconds


def _extent(sides: tuple[float, float]) -> str:
    """``-15 ... +0``, or ``all`` for a side without bound."""
    left, right = ("all" if math.isinf(side) else f"{side:g}" for side in sides)
    return f"-{left} ... +{right}"
