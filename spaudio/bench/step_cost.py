"""Training steps of a recipe with each filter, timed in turn on the recipe's batches."""

import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from torch import nn

from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.experiment.compose import compose, data_prep_folder
from spaudio.experiment.processes import make_accelerator
from spaudio.experiment.settings import AudioSettings, TextSettings
from spaudio.experiment.tasks import open_task
from spaudio.training.objective import Objective
from spaudio.training.optim import make_optimizer

BATCHES = 8  # per round. The clips of a batch have similar lengths, so several are needed.
COLUMNS = {
    "filter": "{filter}",
    "parameters": "{parameters:,}",
    "ms per step": "{ms:.1f}",
    "relative": "{times_the_first:.2f}",
}


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
        ``title``, ``machine``, ``recipe``, ``shape``, and ``rows``, one per filter.

    Raises:
        ConfigError: If the folder is not a recipe's, or a setting is wrong.
        DataError: If the data set is missing.
    """
    # Overrides are split at the commas between them, not at those within brackets of a value.
    composed = {
        name: compose(recipe, [*re.split(r",(?=[\w.]+=)", f"filter={name}"), *overrides])
        for name in filters
    }
    first = composed[filters[0]]
    task = open_task(first, data_prep_folder(recipe))
    batches = list(islice(task.train.loader, BATCHES))
    functions: dict[str, Callable[[], None]] = {}
    parameters: dict[str, int] = {}
    for name, settings in composed.items():
        task.settings = settings
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
    return {
        "title": f"{first.recipe}: {first.model.layers} layers of width {first.model.dim}, batches "
        f"of {first.trainer.batch_size} sequences of {tokens:.0f} tokens; ",
        "machine": machine(),
        "recipe": first.recipe,
        "shape": shape,
        "rows": rows,
    }


def _steps(
    settings: AudioSettings | TextSettings,
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Any],
) -> Callable[[], None]:
    """Returns a function that trains the model one step on each batch."""
    trainer = settings.trainer
    accelerator = make_accelerator(trainer)
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
