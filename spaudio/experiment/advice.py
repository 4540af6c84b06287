"""Settings that are allowed and surely not meant: what a run warns of before it trains."""

from __future__ import annotations

from collections.abc import Sequence

from spaudio.filters import TokenFilter


def rate_advice(rates: Sequence[int], sample_rate: int, f_max: float | None) -> str | None:
    """Warns of clips that were sampled too slowly for the upper bands.

    Args:
        rates: Of the clips, in Hz.
        sample_rate: To which they are resampled, in Hz.
        f_max: Upper edge of the highest band in Hz; None is half of ``sample_rate``.

    Returns:
        The warning, or None.
    """
    top = sample_rate / 2 if f_max is None else f_max
    lowest = min(rates)
    slow = sum(rate / 2 < top for rate in rates)
    if not slow:
        return None
    trap = ", by which a model may tell them apart" if slow < len(rates) else ""
    return (
        f"{slow} of {len(rates)} clips are sampled at less than the bands up to {top:g} Hz need "
        f"(lowest rate {lowest} Hz): above {lowest / 2:g} Hz they are empty{trap}. Give "
        f"tokens.f_max={lowest / 2:g}, or tokens.sample_rate={lowest}"
    )


def kernel_advice(filters: Sequence[TokenFilter], longest: int) -> str | None:
    """Warns of kernels with taps that reach beyond the ends of every clip.

    Args:
        filters: Of a model.
        longest: Tokens of the longest clip.

    Returns:
        The warning, or None.
    """
    reach, name = max(((max(f.extent), f.name) for f in filters), default=(0, ""))
    if reach < longest:
        return None
    return (
        f"the kernels of filter={name} reach {reach} tokens to one side, the longest clip has "
        f"{longest}: their outer taps never meet a token. Give shorter kernels, or finer tokens "
        "(tokens.hop, tokens.stack)"
    )
