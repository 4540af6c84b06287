"""One run of a recipe: prepare, train, test, report."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from spaudio.experiment.advice import kernel_advice, rate_advice
from spaudio.experiment.data import RecipeData, features_folder, load_data
from spaudio.experiment.inputs import Inputs
from spaudio.experiment.model import (
    build_model,
    draw_filters,
    draw_front_end,
    draw_mask,
    fit_front_end,
)
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
from spaudio.model.classifier import Classifier, count_parameters
from spaudio.report.floor import measure_floor
from spaudio.report.multilabel import MultiLabelScores, score_multilabel
from spaudio.report.scores import Scores, score
from spaudio.report.write import write_report
from spaudio.tokens.augment import AugmentConfig, unused_settings
from spaudio.tokens.front_end import own_settings
from spaudio.train.feed import make_feed
from spaudio.train.log import read_log
from spaudio.train.multilabel import MultiLabel, MultiLabelPredictions
from spaudio.train.objective import Classification, Predictions


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
        objective.measure(
            model,
            batches_to_measure(
                make_feed(part, trainer, shuffle=False, seed=0), accelerator, "predict"
            ),
            accelerator,
        )
        for part in (data.valid, data.test)
    )
    test_seconds = time.perf_counter() - start
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
            facts=training_facts(
                config,
                model,
                result,
                prepare_seconds=prepare_seconds,
                test_seconds=test_seconds,
                token_seconds=data.token_seconds,
            )
            | _facts(config, data, model, floor, valid),
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


def _facts(
    config: DictConfig,
    data: RecipeData,
    model: Classifier,
    floor: dict[str, Any],
    valid: Predictions | MultiLabelPredictions,
) -> dict[str, Any]:
    """Gathers what ``report.json`` says of a run on audio, besides the scores of its test split."""
    front_end = model.front_end
    return {
        "tokens": OmegaConf.to_container(config.tokens, resolve=True),
        "floor": floor,
        "valid": valid.metrics,
        "front_end_params": 0 if front_end is None else count_parameters(front_end)[0],
        "clips": {
            split: sum(clip.split == split for clip in data.clips)
            for split in ("train", "valid", "test")
        },
        "skipped": data.skipped,
        "token_seconds": data.token_seconds,
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
