"""Symbols per second of a language model, with and without cached keys, values and filter state."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.model.encoder import EncoderConfig
from spaudio.model.generate import generate
from spaudio.model.language import LanguageModel

SYMBOLS = 27
CONTEXT = 128  # of untrained models, in symbols
FILTERS = ("none", "depthwise", "haar", "bank", "adaptive")
COLUMNS = {
    "model": "{name}",
    "layers x dim": "{layers} x {dim}",
    "positions": "{positions}",
    "context": "{context:d}",
    "symbols/s with cache": "{cached_per_second:.0f}",
    "without": "{full_per_second:.0f}",
    "speedup": "{times_faster:.1f}",
}


def untrained(context: int, filters: Sequence[str]) -> dict[str, LanguageModel]:
    """Builds untrained models of the size of text8's preset ``tiny``, one per filter.

    Args:
        context: Longest sequence.
        filters: Names of filters, used with their default options.
    """
    torch.manual_seed(0)
    shape = EncoderConfig(dim=128, layers=4, heads=4, max_tokens=context, causal=True)
    return {name: LanguageModel(SYMBOLS, shape, {"name": name}) for name in filters}


def measure(
    models: Mapping[str, LanguageModel], length: int | None, rounds: int, limit: float
) -> dict[str, Any]:
    """Times generation with and without a cache, in turn.

    Each starts with a full context, so the result is the cost of a long text. It includes a restart
    whenever the context is full.

    Args:
        models: Models by their name in the table.
        length: Symbols per round. None takes the context, which includes two restarts.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds per model after which no further round starts.

    Returns:
        ``title``, ``machine``, and ``rows``, one per model.
    """
    rows = []
    for name, model in models.items():
        config = model.encoder.config
        generator = torch.Generator().manual_seed(0)
        prompt = torch.randint(model.symbols, (1, config.max_tokens), generator=generator)
        count = config.max_tokens if length is None else length
        cached, full = (
            partial(generate, model, prompt, count, temperature=0, cached=cached)
            for cached in (True, False)
        )
        seconds = take_turns({"cached": cached, "full": full}, rounds, limit)
        rows.append(
            {
                "name": name,
                "dim": config.dim,
                "layers": config.layers,
                "positions": config.positions,
                "context": config.max_tokens,
                "length": count,
                "rounds": len(seconds["full"]),
                "seconds": statistics.median(seconds["cached"]),
                "cached_per_second": count / statistics.median(seconds["cached"]),
                "full_per_second": count / statistics.median(seconds["full"]),
                "times_faster": ratio(seconds["full"], seconds["cached"]),
            }
        )
    return {"title": "one text at a time; ", "machine": machine(), "rows": rows}
