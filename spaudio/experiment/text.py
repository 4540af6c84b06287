"""One run of a text recipe: prepare, train, measure, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch.utils.data import DataLoader

from spaudio.errors import ConfigError
from spaudio.experiment.data import prep_function
from spaudio.experiment.model import build_language_model, draw_filters
from spaudio.experiment.path import draw_path
from spaudio.experiment.processes import (
    is_first_process,
    make_accelerator,
    share_run_folder,
)
from spaudio.experiment.training import (
    batches_to_measure,
    check_settings,
    is_finished,
    open_run,
    train_run,
    training_facts,
)
from spaudio.model.flops import step_flops
from spaudio.model.language import LanguageModel
from spaudio.report.text import write_text_report
from spaudio.text.corpus import (
    ALPHABET,
    SPLITS,
    Corpus,
    SourceText,
    Symbols,
    decode,
    prepare_corpus,
)
from spaudio.text.windows import (
    EveryWindow,
    RandomWindows,
    TextWindows,
    collate_windows,
    sliding_windows,
    spread_windows,
)
from spaudio.train.config import TrainerConfig
from spaudio.train.feed import Feed
from spaudio.train.language import Likelihood, NextCharacter
from spaudio.train.log import read_log


def run_text(config: DictConfig, scripts: Path) -> Path:
    """Runs a text recipe from text to report.

    Args:
        config: The composed configuration; where ``resume`` names a run, all else comes from it.
        scripts: The folder ``data_prep``.

    Returns:
        The run's folder.

    Raises:
        SpaudioError: Of the kind that fits, for whatever the user can mend.
    """
    console = Console(stderr=True, quiet=not is_first_process())
    config, run = open_run(config)
    resume = run is not None
    if run is not None and is_finished(run, console):
        return run
    trainer, optim = check_settings(config)
    for name in ("context", "steps_per_epoch", "eval.windows"):
        if OmegaConf.select(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1; got {OmegaConf.select(config, name)}")
    start = time.perf_counter()
    accelerator = make_accelerator(trainer)
    with accelerator.main_process_first():  # the others find what it has prepared
        corpus = load_corpus(config, scripts)
    model = build_language_model(config, len(ALPHABET))
    train, valid = make_feeds(config, corpus, trainer)
    tests = {name: _sliding_feed(config, corpus.split(name), trainer) for name in ("valid", "test")}
    if run is None:
        run = share_run_folder(config, accelerator)
    console.print(f"run: {run}\ntext: {corpus.name}, {len(corpus.symbols):,} characters")
    prepare_seconds = time.perf_counter() - start
    result = train_run(
        model,
        train,
        valid,
        NextCharacter(),
        trainer=trainer,
        optim=optim,
        config=config,
        run=run,
        accelerator=accelerator,
        resume=resume,
        console=console,
    )
    start = time.perf_counter()
    measured = {
        name: NextCharacter().measure(
            model, batches_to_measure(feed, accelerator, name), accelerator
        )
        for name, feed in tests.items()
    }
    test_seconds = time.perf_counter() - start
    if accelerator.is_main_process:
        facts = training_facts(
            config,
            model,
            result,
            prepare_seconds=prepare_seconds,
            test_seconds=test_seconds,
        ) | _facts(config, corpus, model, measured)
        draw_filters(run)
        _draw_path(run, model, corpus, config.context)
        write_text_report(run, facts, read_log(run))
        for name, found in measured.items():
            console.print(f"{name} of {corpus.name}: {found.loss:.4f} nats, {found.bits:.4f} bits")
        console.print(f"report: {run / 'report.md'}", soft_wrap=True)
    return run


def load_corpus(config: DictConfig, scripts: Path) -> Corpus:
    """Prepares a recipe's text, where that has not been done, and opens it.

    Args:
        config: The composed configuration. What ``corpus`` came to is put into it, so that a
            resumed run cannot come to another text.
        scripts: The folder ``data_prep``.

    Raises:
        ConfigError: If a setting is unknown or does not fit.
        DataError: If the text is missing or not in text8's format.
    """
    options: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        config.prep_options, resolve=True
    )
    find = prep_function(scripts, config.prep, options)
    folder = Path(config.data) / str(config.recipe)
    source: SourceText = find(folder / "work", **options)
    config.corpus = source.choice
    return prepare_corpus(source, folder)


def _draw_path(run: Path, model: LanguageModel, corpus: Corpus, context: int) -> None:
    """Draws how a text that the model was not trained on passes the first filter."""
    symbols = corpus.split("valid")[:context]
    draw_path(
        run,
        model,
        torch.from_numpy(symbols.astype("int64")),
        title=f"{corpus.name}, validation split from its first character",
        labels=decode(symbols),
    )


def make_feeds(config: DictConfig, corpus: Corpus, trainer: TrainerConfig) -> tuple[Feed, Feed]:
    """Random windows of the training split, and fixed ones of the validation split.

    Args:
        config: The composed configuration.
        corpus: The text.
        trainer: Batches and workers.
    """
    train = TextWindows(corpus.split("train"), config.context)
    random = RandomWindows(len(train), trainer.batch_size, config.steps_per_epoch, seed=config.seed)
    valid = corpus.split("valid")
    windows = spread_windows(len(valid), config.context, config.eval.windows)
    return (
        _feed(train, random, trainer.workers),
        _feed_every(TextWindows(valid, config.context, windows), trainer),
    )


def _sliding_feed(config: DictConfig, symbols: Symbols, trainer: TrainerConfig) -> Feed:
    """A split, or its beginning, by sliding windows."""
    symbols = symbols[: config.eval.max_characters]
    windows = sliding_windows(len(symbols), config.context, config.eval.stride)
    return _feed_every(TextWindows(symbols, config.context, windows), trainer)


def _feed_every(dataset: TextWindows, trainer: TrainerConfig) -> Feed:
    return _feed(dataset, EveryWindow(len(dataset), 2 * trainer.batch_size), 0)


def _feed(dataset: TextWindows, sampler: RandomWindows | EveryWindow, workers: int) -> Feed:
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_windows,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return Feed(loader, sampler)


def _facts(
    config: DictConfig, corpus: Corpus, model: LanguageModel, measured: dict[str, Likelihood]
) -> dict[str, Any]:
    """Gathers what ``report.json`` says of a run on text."""
    batch = config.trainer.batch_size
    return {
        "corpus": {
            "name": corpus.name,
            "stand_in": corpus.stand_in,
            "sha256": corpus.sha256,
            "characters": {name: len(corpus.split(name)) for name in SPLITS},
        },
        **{
            name: {**found.metrics, "characters": found.characters}
            for name, found in measured.items()
        },
        "stride": config.eval.stride,
        "context": config.context,
        "positions": config.model.positions,
        "steps": config.trainer.epochs * config.steps_per_epoch,
        "step_flops": step_flops(model.encoder, config.context, batch, model.symbols),
    }
