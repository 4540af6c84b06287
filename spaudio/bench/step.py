"""Training steps of a recipe with each filter, on its own batches, in turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import nn

from spaudio.bench.clock import ratio, take_turns
from spaudio.bench.machine import machine
from spaudio.experiment.compose import compose
from spaudio.experiment.data import load_data
from spaudio.experiment.model import build_language_model, build_model, fit_front_end, is_text
from spaudio.experiment.text import load_corpus, make_feeds
from spaudio.experiment.training import check_settings
from spaudio.text.corpus import ALPHABET
from spaudio.train.feed import make_feed
from spaudio.train.language import NextCharacter
from spaudio.train.multilabel import MultiLabel
from spaudio.train.objective import Classification, Objective
from spaudio.train.optim import make_optimizer

BATCHES = 8  # a round; of one length each, so several are needed


@dataclass(frozen=True)
class _Task:
    """What is trained: batches of a recipe, and how a model of it comes to be."""

    batches: Sequence[Any]
    tokens: float  # of a sequence, mean
    objective: Objective
    build: Callable[[DictConfig], nn.Module]


def measure(
    recipe: Path, overrides: Sequence[str], filters: Sequence[str], rounds: int, limit: float
) -> dict[str, Any]:
    """Times forward, backward and the optimiser's step; loading of the batches is not counted.

    Args:
        recipe: Folder with a ``config.yaml``; its data set is prepared where it has not been.
        overrides: Of every filter, as for the recipe's ``run.py``.
        filters: Choices of the group ``filter``, to which overrides of their own may be added by
            commas (``bank,filter.num_filters=8``); the first one is what others are divided by.
        rounds: Times that each is timed; medians are reported.
        limit: Seconds after which no further round begins.

    Returns:
        ``machine``, and ``rows``: one a filter.

    Raises:
        ConfigError: If the folder is not a recipe's, or a setting is wrong.
        DataError: If the data set is missing.
    """
    configs = {name: compose(recipe, [*_apart(f"filter={name}"), *overrides]) for name in filters}
    first = next(iter(configs.values()))
    scripts = recipe.resolve().parents[1] / "data_prep"
    task = (_text_task if is_text(first) else _audio_task)(first, scripts)
    functions: dict[str, Callable[[], None]] = {}
    parameters: dict[str, int] = {}
    for name, config in configs.items():
        model = task.build(config)
        parameters[name] = sum(p.numel() for p in model.parameters())
        functions[name] = _steps(config, model, task.objective, task.batches)
    seconds = take_turns(functions, rounds, limit)
    baseline = seconds[filters[0]]
    rows = [
        {
            "filter": name,
            "parameters": parameters[name],
            "rounds": len(took),
            "seconds": median(took) / len(task.batches),
            "times_the_first": ratio(took, baseline),
        }
        for name, took in seconds.items()
    ]
    shape = {
        "batch": first.trainer.batch_size,
        "tokens": task.tokens,
        "dim": first.model.dim,
        "layers": first.model.layers,
    }
    return {"machine": machine(), "recipe": str(first.recipe), "shape": shape, "rows": rows}


def _audio_task(config: DictConfig, scripts: Path) -> _Task:
    data = load_data(config, scripts)
    trainer, _ = check_settings(config)
    feed = make_feed(data.train, trainer, shuffle=True, seed=config.seed)
    batches = list(islice(feed.loader, BATCHES))
    kind = MultiLabel if data.multi_label else Classification

    def build(config: DictConfig) -> nn.Module:
        model = build_model(config, data.features, len(data.classes))
        fit_front_end(model, data, config.seed)
        return model

    tokens = sum(batch.tokens.shape[1] for batch in batches) / len(batches)
    return _Task(batches, tokens, kind(trainer.label_smoothing, config.augment.mixup), build)


def _text_task(config: DictConfig, scripts: Path) -> _Task:
    trainer, _ = check_settings(config)
    train, _ = make_feeds(config, load_corpus(config, scripts), trainer)
    batches = list(islice(train.loader, BATCHES))
    build = partial(build_language_model, symbols=len(ALPHABET))
    return _Task(batches, config.context, NextCharacter(), build)


def _apart(overrides: str) -> list[str]:
    """Takes overrides apart at the commas between them; those in brackets are of a value."""
    return re.split(r",(?=[\w.]+=)", overrides)


def _steps(
    config: DictConfig,
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Any],
) -> Callable[[], None]:
    """Returns what trains the model one step on each batch."""
    trainer, optim = check_settings(config)
    accelerator = Accelerator(mixed_precision=trainer.precision, cpu=not torch.cuda.is_available())
    model, optimizer = accelerator.prepare(model.train(), make_optimizer(model, optim))
    rng = np.random.default_rng(config.seed)

    def run() -> None:
        for batch in batches:
            accelerator.backward(objective.loss(model, batch, rng))
            accelerator.clip_grad_norm_(model.parameters(), trainer.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    facts, shape, rows = report["machine"], report["shape"], report["rows"]
    lines = [
        f"{report['recipe']}: {shape['layers']} layers of width {shape['dim']}, batches of "
        f"{shape['batch']} sequences of {shape['tokens']:.0f} tokens; {facts['processor']}, "
        f"{facts['threads']} threads, torch {facts['torch']}; medians of "
        f"{min(row['rounds'] for row in rows)} rounds",
        "",
        "| filter | parameters | ms a step | times the first |",
        "|---|--:|--:|--:|",
        *(
            f"| {row['filter']} | {row['parameters']:,} | {1e3 * row['seconds']:.1f} | "
            f"{row['times_the_first']:.2f} |"
            for row in rows
        ),
    ]
    return "\n".join(lines)
