"""Training steps of a recipe with each filter, timed in turn on the recipe's batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from spaudio.bench.clock import ratio, take_turns
from spaudio.bench.machine import machine
from spaudio.experiment.compose import compose, data_prep_folder
from spaudio.experiment.settings import AudioSettings, TextSettings
from spaudio.experiment.tasks import open_task
from spaudio.train.objective import Objective
from spaudio.train.optim import make_optimizer

BATCHES = 8  # per round. The clips of a batch have similar lengths, so several are needed.


def measure(
    recipe: Path, overrides: Sequence[str], filters: Sequence[str], rounds: int, limit: float
) -> dict[str, Any]:
    """Times forward pass, backward pass and optimizer step, without loading of the batches.

    Args:
        recipe: Folder with a ``config.yaml``. Its data set is prepared if necessary.
        overrides: Settings for every filter, as for the recipe's ``run.py``.
        filters: Names of filters, with their own settings after commas
            (``bank,filter.num_filters=8``). The others are compared with the first one.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds after which no further round starts.

    Returns:
        ``machine``, ``recipe``, ``shape``, and ``rows``, one per filter.

    Raises:
        ConfigError: If the folder is not a recipe's, or a setting is wrong.
        DataError: If the data set is missing.
    """
    composed = {name: compose(recipe, [*_split(f"filter={name}"), *overrides]) for name in filters}
    batches: list[Any] = []
    functions: dict[str, Callable[[], None]] = {}
    parameters: dict[str, int] = {}
    for name, settings in composed.items():
        task = open_task(settings, data_prep_folder(recipe))
        batches = batches or list(islice(task.train.loader, BATCHES))
        model = task.build_model()
        parameters[name] = sum(p.numel() for p in model.parameters())
        functions[name] = _steps(settings, model, task.objective, batches)
    seconds = take_turns(functions, rounds, limit)
    rows = [
        {
            "filter": name,
            "parameters": parameters[name],
            "rounds": len(took),
            "seconds": median(took) / len(batches),
            "times_the_first": ratio(took, seconds[filters[0]]),
        }
        for name, took in seconds.items()
    ]
    first = composed[filters[0]]
    if isinstance(first, TextSettings):
        tokens: float = first.context
    else:
        tokens = fmean(batch.tokens.shape[1] for batch in batches)
    shape = {
        "batch": first.trainer.batch_size,
        "tokens": tokens,
        "dim": first.model.dim,
        "layers": first.model.layers,
    }
    return {"machine": machine(), "recipe": first.recipe, "shape": shape, "rows": rows}


def _split(overrides: str) -> list[str]:
    """Splits overrides at the commas between them, not at those within brackets of a value."""
    return re.split(r",(?=[\w.]+=)", overrides)


def _steps(
    settings: AudioSettings | TextSettings,
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Any],
) -> Callable[[], None]:
    """Returns a function that trains the model one step on each batch."""
    trainer = settings.trainer
    accelerator = Accelerator(mixed_precision=trainer.precision, cpu=not torch.cuda.is_available())
    optimizer = make_optimizer(model, settings.optim)
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    rng = np.random.default_rng(settings.seed)

    def run() -> None:
        for batch in batches:
            accelerator.backward(objective.loss(model, batch, rng))
            accelerator.clip_grad_norm_(model.parameters(), trainer.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def table(report: dict[str, Any]) -> str:
    """Formats the report as Markdown."""
    facts, shape, rows = report["machine"], report["shape"], report["rows"]
    lines = [
        f"{report['recipe']}: {shape['layers']} layers of width {shape['dim']}, batches of "
        f"{shape['batch']} sequences of {shape['tokens']:.0f} tokens; {facts['processor']}, "
        f"{facts['threads']} threads, torch {facts['torch']}; medians of "
        f"{min(row['rounds'] for row in rows)} rounds",
        "",
        "| filter | parameters | ms per step | relative |",
        "|---|--:|--:|--:|",
        *(
            f"| {row['filter']} | {row['parameters']:,} | {1e3 * row['seconds']:.1f} | "
            f"{row['times_the_first']:.2f} |"
            for row in rows
        ),
    ]
    return "\n".join(lines)
