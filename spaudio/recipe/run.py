"""One run of a recipe: prepare, train, test, report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from spaudio.audio.progress import progress_bar
from spaudio.filters import describe
from spaudio.model.classifier import Classifier, count_parameters
from spaudio.recipe.advice import kernel_advice, rate_advice
from spaudio.recipe.data import RecipeData, features_folder, load_data
from spaudio.recipe.inputs import Inputs
from spaudio.recipe.model import (
    build_model,
    draw_filters,
    draw_front_end,
    draw_mask,
    fit_front_end,
)
from spaudio.recipe.path import draw_path
from spaudio.recipe.processes import (
    is_first_process,
    make_accelerator,
    processes,
    share_run_folder,
)
from spaudio.recipe.training import check_settings, is_finished, open_run, train_run
from spaudio.report.floor import measure_floor
from spaudio.report.multilabel import MultiLabelScores, score_multilabel
from spaudio.report.provenance import provenance
from spaudio.report.scores import Scores, score
from spaudio.report.write import write_report
from spaudio.tokens.augment import AugmentConfig, unused_settings
from spaudio.tokens.dataset import Batch, TokenDataset
from spaudio.tokens.front_end import own_settings
from spaudio.train.feed import make_feed
from spaudio.train.log import read_log
from spaudio.train.loop import FitResult
from spaudio.train.multilabel import MultiLabel, MultiLabelPredictions
from spaudio.train.objective import Classification, Predictions
from spaudio.train.shards import share_out
from spaudio.train.trainer import TrainerConfig


def run_recipe(config: DictConfig, scripts: Path) -> Path:
    """Runs a recipe from audio to report.

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
    if run is None:
        config = _with_own_tokens(config)
    if unused := unused_settings(AugmentConfig(**config.augment), config.tokens.name):
        console.print(f"tokens={config.tokens.name} leaves out augment.{', augment.'.join(unused)}")
    start = time.perf_counter()
    accelerator = make_accelerator(trainer)
    with accelerator.main_process_first():  # the others find what it has prepared
        data = load_data(config, scripts)
    model = build_model(config, data.features, len(data.classes))
    fit_front_end(model, data, config.seed)  # of a resumed run too: it may have come to no step
    if run is None:
        run = share_run_folder(config, accelerator)
    console.print(f"run: {run}")
    for advice in (
        rate_advice(
            [c.sample_rate for c in data.clips],
            config.tokens.sample_rate,
            config.tokens.get("f_max"),
        ),
        kernel_advice(
            model.encoder.token_filters(),
            math.ceil(max(data.cache.length(c.path) for c in data.clips) / config.tokens.stack),
        ),
    ):
        if advice is not None:
            console.print(f"warning: {advice}", style="yellow", soft_wrap=True, markup=False)
    floor = {}
    if accelerator.is_main_process:  # which alone reports it
        floor = measure_floor(
            data.clips,
            data.classes,
            data.root,
            config.tokens.sample_rate,
            features_folder(config),
            multi_label=data.multi_label,
        )
    kind = MultiLabel if data.multi_label else Classification
    objective = kind(trainer.label_smoothing, config.augment.mixup)
    prepare_seconds = time.perf_counter() - start
    if accelerator.is_main_process:
        Inputs.of(data).save(run)
    result = train_run(
        model,
        make_feed(data.train, trainer, shuffle=True, seed=config.seed),
        make_feed(data.valid, trainer, shuffle=False, seed=config.seed),
        objective,
        trainer=trainer,
        optim=optim,
        config=config,
        run=run,
        accelerator=accelerator,
        resume=resume,
        console=console,
    )
    start = time.perf_counter()
    valid, test = (
        _predict(objective, model, part, trainer, accelerator) for part in (data.valid, data.test)
    )
    seconds = {
        "prepare": prepare_seconds,
        "train": result.seconds,
        "test": time.perf_counter() - start,
    }
    measure = score_multilabel if data.multi_label else score
    scores = measure(test.probabilities, test.labels, data.classes)
    if accelerator.is_main_process:
        draw_filters(run)
        draw_front_end(run)
        draw_mask(run, model, data)
        clip = data.test.clips[0]
        tokens = torch.from_numpy(data.test[0, 0].tokens)
        draw_path(run, model, tokens, title=f"{clip.path} ({clip.label})")
        write_report(
            run,
            facts=_facts(config, data, model, result, floor, valid, seconds),
            scores=scores,
            records=read_log(run),
            clips=data.test.clips,
            classes=data.classes,
            probabilities=test.probabilities,
        )
        _summary(console, run, scores, floor)
    return run


def _with_own_tokens(config: DictConfig) -> DictConfig:
    """Leaves out settings of front-ends that were not chosen, which a recipe's YAML may hold."""
    config = config.copy()
    config.tokens = own_settings(config.tokens)
    return config


def _predict(
    objective: Classification | MultiLabel,
    model: Classifier,
    dataset: TokenDataset,
    trainer: TrainerConfig,
    accelerator: Accelerator,
) -> Predictions | MultiLabelPredictions:
    """Runs the trained model over a split."""
    loader = share_out(make_feed(dataset, trainer, shuffle=False, seed=0).loader, accelerator)
    with progress_bar("predict", len(loader), show=accelerator.is_main_process) as advance:

        def counted() -> Iterator[Batch]:
            for batch in loader:
                yield batch
                advance(1)

        return objective.measure(model, counted(), accelerator)


def _facts(
    config: DictConfig,
    data: RecipeData,
    model: Classifier,
    result: FitResult,
    floor: dict[str, Any],
    valid: Predictions | MultiLabelPredictions,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Gathers what ``report.json`` says besides the scores of the test split."""
    num_params, filter_params = count_parameters(model)
    front_end = model.front_end
    return {
        "recipe": config.recipe,
        "tokens": OmegaConf.to_container(config.tokens, resolve=True),
        "filter": OmegaConf.to_container(config.filter, resolve=True),
        "filters": [describe(f, data.token_seconds) for f in model.encoder.token_filters()],
        "seed": config.seed,
        "floor": floor,
        "valid": valid.metrics,
        "best_epoch": result.best_epoch,
        "epochs": config.trainer.epochs,
        "processes": processes(),
        "num_params": num_params,
        "filter_params": filter_params,
        "front_end_params": 0 if front_end is None else count_parameters(front_end)[0],
        "clips": {
            split: sum(clip.split == split for clip in data.clips)
            for split in ("train", "valid", "test")
        },
        "skipped": data.skipped,
        "token_seconds": data.token_seconds,
        "seconds": seconds,
        "tokens_per_second": result.tokens_per_second,
        "step_seconds": result.step_seconds,
        "data_wait": result.data_wait,
        **provenance(),
    }


def _summary(
    console: Console, run: Path, scores: Scores | MultiLabelScores, floor: dict[str, Any]
) -> None:
    """Prints what a reader wants first."""
    if isinstance(scores, MultiLabelScores):
        value, spread = scores.mean_average_precision, f"d' {scores.d_prime:.3f}"
        trivial = "class frequencies"
    else:
        value, trivial = scores.accuracy, "majority class"
        spread = "95 % interval {:.4f}-{:.4f}".format(*scores.interval)
    console.print(
        f"test {scores.metric} {value:.4f} ({spread}); classical floor {floor['svm']:.4f}; "
        f"{trivial} {floor['majority']:.4f}"
    )
    console.print(f"report: {run / 'report.md'}", soft_wrap=True)
