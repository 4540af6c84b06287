"""Symbols per second of a language model, with and without cached keys, values and filter state."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from spaudio.bench.clock import ratio, take_turns
from spaudio.bench.machine import machine
from spaudio.model.encoder import EncoderConfig
from spaudio.model.generate import generate
from spaudio.model.language import LanguageModel

SYMBOLS = 27
FILTERS = ("none", "depthwise", "haar", "bank", "adaptive")


def untrained(context: int, filters: Sequence[str] = FILTERS) -> dict[str, LanguageModel]:
    """Builds untrained models of the size of text8's preset ``tiny``, one per filter.

    Args:
        context: Longest sequence.
        filters: Names of filters, which have their default options.
    """
    torch.manual_seed(0)
    shape = EncoderConfig(dim=128, layers=4, heads=4, max_tokens=context, causal=True)
    return {name: LanguageModel(SYMBOLS, shape, {"name": name}) for name in filters}


def measure(
    models: Mapping[str, LanguageModel], length: int | None, rounds: int, limit: float
) -> dict[str, Any]:
    """Times generation with and without a cache, in turn.

    Each starts with a full context, so the result is the cost of a long text. It includes the
    restarts whenever the context is full.

    Args:
        models: Models by their name in the table.
        length: Symbols per round. None takes the context, which includes two restarts.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds per model after which no further round starts.

    Returns:
        ``machine``, and ``rows``, one per model.
    """
    rows = [_measure(name, model, length, rounds, limit) for name, model in models.items()]
    return {"machine": machine(), "rows": rows}


def _measure(
    name: str, model: LanguageModel, length: int | None, rounds: int, limit: float
) -> dict[str, Any]:
    config = model.encoder.config
    prompt = torch.randint(
        model.symbols, (1, config.max_tokens), generator=torch.Generator().manual_seed(0)
    )
    count = config.max_tokens if length is None else length
    functions: dict[str, Callable[[], object]] = {
        kind: partial(generate, model, prompt, count, temperature=0, cached=kind == "cached")
        for kind in ("cached", "full")
    }
    seconds = take_turns(functions, rounds, limit)
    return {
        "name": name,
        "dim": config.dim,
        "layers": config.layers,
        "positions": config.positions,
        "context": config.max_tokens,
        "length": count,
        "rounds": len(seconds["full"]),
        "cached_per_second": count / statistics.median(seconds["cached"]),
        "full_per_second": count / statistics.median(seconds["full"]),
        "times_faster": ratio(seconds["full"], seconds["cached"]),
    }


def table(report: dict[str, Any]) -> str:
    """Formats the report as Markdown."""
    facts, rows = report["machine"], report["rows"]
    lines = [
        f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}; one text at a "
        f"time; medians of {min(row['rounds'] for row in rows)} rounds or more",
        "",
        "| model | layers x dim | positions | context | symbols/s with cache | without | speedup |",
        "|---|---|---|--:|--:|--:|--:|",
        *(
            f"| {row['name']} | {row['layers']} x {row['dim']} | {row['positions']} | "
            f"{row['context']} | {row['cached_per_second']:.0f} | {row['full_per_second']:.0f} | "
            f"{row['times_faster']:.1f} |"
            for row in rows
        ),
    ]
    return "\n".join(lines)
