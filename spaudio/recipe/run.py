"""One run of a recipe: prepare, train, test, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from spaudio.audio.progress import progress_bar
from spaudio.filters import describe
from spaudio.model.classifier import Classifier, count_parameters
from spaudio.recipe.data import RecipeData, features_folder, load_data
from spaudio.recipe.model import (
    build_model,
    draw_filters,
    draw_front_end,
    draw_mask,
    encoder_config,
    fit_front_end,
)
from spaudio.recipe.run_folder import create_run_folder, read_run_config
from spaudio.report.floor import measure_floor
from spaudio.report.provenance import provenance
from spaudio.report.scores import Scores, score
from spaudio.report.write import write_report
from spaudio.tokens.augment import AugmentConfig, unused_settings
from spaudio.tokens.dataset import Batch, TokenDataset
from spaudio.tokens.front_end import own_settings
from spaudio.train.checkpoint import find_checkpoint, load_weights
from spaudio.train.log import read_log
from spaudio.train.loop import FitResult, TrainerConfig, fit, make_loader
from spaudio.train.objective import Predictions, predict
from spaudio.train.optim import OptimConfig


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
    console = Console(stderr=True)
    resume = config.resume is not None
    if resume:
        run = Path(config.resume)
        config = read_run_config(run)
        if (run / "report.json").is_file():
            console.print(f"{run} is finished; its report is {run / 'report.md'}")
            return run
    # Settings are checked before a folder is made, so that a typing error leaves nothing behind.
    trainer, optim = TrainerConfig(**config.trainer), OptimConfig(**config.optim)
    encoder_config(config)
    if not resume:
        config = _with_own_tokens(config)
    if unused := unused_settings(AugmentConfig(**config.augment), config.tokens.name):
        console.print(f"tokens={config.tokens.name} leaves out augment.{', augment.'.join(unused)}")
    start = time.perf_counter()
    data = load_data(config, scripts)
    model = build_model(config, data.features, len(data.classes))
    if not resume:
        fit_front_end(model, data, config.seed)
        run = create_run_folder(config)
    console.print(f"run: {run}")
    floor = measure_floor(
        data.clips, data.classes, data.root, config.tokens.sample_rate, features_folder(config)
    )
    prepare_seconds = time.perf_counter() - start
    accelerator = Accelerator(mixed_precision=trainer.precision)
    try:
        result = fit(
            model,
            data.train,
            data.valid,
            trainer=trainer,
            optim=optim,
            mixup=config.augment.mixup,
            seed=config.seed,
            run=run,
            config=OmegaConf.to_yaml(config, resolve=True),
            accelerator=accelerator,
            resume=resume,
        )
    except KeyboardInterrupt:
        console.print(f"stopped; the last finished epoch is kept. Go on with resume={run}")
        raise
    model.load_state_dict(load_weights(find_checkpoint(run / "checkpoints", "best")))
    start = time.perf_counter()
    valid, test = (_predict(model, part, trainer, accelerator) for part in (data.valid, data.test))
    seconds = {
        "prepare": prepare_seconds,
        "train": result.seconds,
        "test": time.perf_counter() - start,
    }
    scores = score(test.probabilities, test.labels, data.classes)
    if accelerator.is_main_process:
        write_report(
            run,
            facts=_facts(config, data, model, result, floor, valid, seconds),
            scores=scores,
            records=read_log(run),
            clips=data.test.clips,
            classes=data.classes,
            probabilities=test.probabilities,
        )
        draw_filters(run)
        draw_front_end(run)
        draw_mask(run, model, data)
        _summary(console, run, scores, floor)
    return run


def _with_own_tokens(config: DictConfig) -> DictConfig:
    """Leaves out settings of front-ends that were not chosen, which a recipe's YAML may hold."""
    config = config.copy()
    config.tokens = own_settings(config.tokens)
    return config


def _predict(
    model: Classifier, dataset: TokenDataset, trainer: TrainerConfig, accelerator: Accelerator
) -> Predictions:
    """Runs the trained model over a split."""
    loader = accelerator.prepare(make_loader(dataset, trainer, shuffle=False, seed=0)[0])
    with progress_bar("predict", len(loader), show=accelerator.is_main_process) as advance:

        def counted() -> Iterator[Batch]:
            for batch in loader:
                yield batch
                advance(1)

        return predict(model, counted(), accelerator)


def _facts(
    config: DictConfig,
    data: RecipeData,
    model: Classifier,
    result: FitResult,
    floor: dict[str, Any],
    valid: Predictions,
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
        "valid": {"accuracy": valid.accuracy, "loss": valid.loss},
        "best_epoch": result.best_epoch,
        "epochs": config.trainer.epochs,
        "num_params": num_params,
        "filter_params": filter_params,
        "front_end_params": 0 if front_end is None else count_parameters(front_end)[0],
        "clips": {
            split: sum(clip.split == split for clip in data.clips)
            for split in ("train", "valid", "test")
        },
        "token_seconds": data.token_seconds,
        "seconds": seconds,
        "tokens_per_second": result.tokens_per_second,
        "step_seconds": result.step_seconds,
        **provenance(),
    }


def _summary(console: Console, run: Path, scores: Scores, floor: dict[str, Any]) -> None:
    """Prints what a reader wants first."""
    low, high = scores.interval
    console.print(
        f"test accuracy {scores.accuracy:.4f} (95 % interval {low:.4f}-{high:.4f}); "
        f"classical floor {floor['svm']:.4f}; majority class {floor['majority']:.4f}"
    )
    console.print(f"report: {run / 'report.md'}", soft_wrap=True)
