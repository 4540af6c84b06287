"""Properties of filters in physical units: milliseconds, and Hz of modulation frequency."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from spaudio.filters.adaptive import AdaptiveFilterBank
from spaudio.filters.base import TokenFilter


def receptive_field_ms(filter: TokenFilter, token_seconds: float) -> tuple[float, float]:
    """Receptive field of a filter in milliseconds.

    Args:
        filter: The filter.
        token_seconds: Seconds per token.

    Returns:
        Milliseconds to the left and to the right of a token; ``math.inf`` for the whole sequence.

    Raises:
        ValueError: If ``token_seconds`` is not positive.
    """
    left, right = filter.receptive_field
    token_ms = 1000 * check_token_seconds(token_seconds)
    return left * token_ms, right * token_ms


def modulation_response(
    filter: TokenFilter, token_seconds: float, n_fft: int = 512
) -> tuple[Tensor, Tensor]:
    """Frequency response over modulation frequency, in Hz.

    Args:
        filter: The filter.
        token_seconds: Seconds per token.
        n_fft: Number of frequencies from 0 to the token rate; even.

    Returns:
        Frequencies in Hz (n_fft // 2 + 1,), up to half the token rate, and the complex response
        (M, n_fft // 2 + 1).

    Raises:
        ValueError: If ``token_seconds`` is not positive, or ``n_fft`` is odd or below 2.
    """
    rate = 1 / check_token_seconds(token_seconds)
    response = filter.frequency_response(n_fft)
    bins = torch.arange(n_fft // 2 + 1, device="cpu", dtype=response.real.dtype)
    return bins * (rate / n_fft), response


def centre_frequency(response: Tensor) -> Tensor:
    """Centroid of the power spectrum of each kernel.

    Args:
        response: Complex (M, bins), from 0 to 1/2 cycle per token, both included, as
            :meth:`TokenFilter.frequency_response` returns it.

    Returns:
        (M,) in cycles per token; 0 for a kernel of zeros.
    """
    power = response.abs().square()
    frequency = torch.linspace(0, 0.5, power.shape[-1], dtype=power.dtype, device=power.device)
    total = power.sum(-1)
    return (power @ frequency) / total.clamp_min(torch.finfo(power.dtype).tiny)


def record_masks(model: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """Records the masks of all adaptive filters in a model during a run.

    Args:
        model: Any module that contains filters.
        run: Runs the model, for instance on one clip.

    Returns:
        Mask (batch, tokens, M) of the last call of each filter, by its name in the model. Filters
        that are not called are left out.
    """
    masks: dict[str, Tensor] = {}

    def keep(name: str, mask: nn.Module, arguments: object, output: Tensor) -> None:
        masks[name] = output.detach()

    filters = [(n, m) for n, m in model.named_modules() if isinstance(m, AdaptiveFilterBank)]
    with ExitStack() as hooks:
        for name, adaptive in filters:
            hooks.enter_context(adaptive.mask.register_forward_hook(partial(keep, name)))
        run()
    return masks


def describe(filter: TokenFilter, token_seconds: float | None = None) -> str:
    """Describes a filter in one line: name, parameters and receptive field.

    Args:
        filter: The filter.
        token_seconds: Seconds per token, to also give the receptive field in milliseconds.

    Returns:
        The line, such as ``bank: causal, 2448 parameters, sees -15 ... +0 tokens``.

    Raises:
        ValueError: If ``token_seconds`` is not positive.
    """
    fields = [f"{_extent(filter.receptive_field)} tokens"]
    if token_seconds is not None:
        fields.append(f"{_extent(receptive_field_ms(filter, token_seconds))} ms")
    kind = "causal" if filter.causal else "centred"
    return f"{filter.name}: {kind}, {filter.num_parameters} parameters, sees {', '.join(fields)}"


def check_token_seconds(token_seconds: float) -> float:
    """Returns the seconds, or raises ValueError if they are not positive."""
    if not 0 < token_seconds < math.inf:
        raise ValueError(f"token_seconds must be positive seconds per token; got {token_seconds}")
    return token_seconds


def _extent(sides: tuple[float, float]) -> str:
    """``-15 ... +0``; ``all`` for an infinite side."""
    left, right = ("all" if math.isinf(side) else f"{side:g}" for side in sides)
    return f"-{left} ... +{right}"
