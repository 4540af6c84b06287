"""What runs of every kind share: to check settings, go on with a run, train, measure, report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from spaudio.experiment.model import encoder_config
from spaudio.experiment.processes import processes
from spaudio.experiment.run_folder import read_run_config
from spaudio.filters import describe
from spaudio.io.progress import progress_bar
from spaudio.model.classifier import Classifier, count_parameters
from spaudio.model.language import LanguageModel
from spaudio.report.provenance import provenance
from spaudio.train.checkpoint import find_checkpoint, load_model
from spaudio.train.config import OptimConfig, TrainerConfig
from spaudio.train.feed import Feed
from spaudio.train.loop import FitResult, fit
from spaudio.train.objective import Objective
from spaudio.train.shards import share_out


def check_settings(config: DictConfig) -> tuple[TrainerConfig, OptimConfig]:
    """Checks settings before a folder is made, so that a typing error leaves nothing behind.

    Raises:
        ConfigError: If a value is out of range.
    """
    encoder_config(config)
    return TrainerConfig(**config.trainer), OptimConfig(**config.optim)


def open_run(config: DictConfig) -> tuple[DictConfig, Path | None]:
    """Returns the settings of a run and, where it goes on with one, that one's folder.

    Args:
        config: The composed configuration; where ``resume`` names a run, all else comes from it.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    if config.resume is None:
        return config, None
    run = Path(config.resume)
    return read_run_config(run), run


def is_finished(run: Path | None, console: Console) -> bool:
    """Says, and tells the user, whether a run has its report."""
    if run is None or not (run / "report.json").is_file():
        return False
    console.print(f"{run} is finished; its report is {run / 'report.md'}")
    return True


def train_run(
    model: nn.Module,
    train: Feed,
    valid: Feed,
    objective: Objective,
    *,
    trainer: TrainerConfig,
    optim: OptimConfig,
    config: DictConfig,
    run: Path,
    accelerator: Accelerator,
    resume: bool,
    console: Console,
) -> FitResult:
    """Trains a run's model and leaves it with the weights of the best epoch.

    Args:
        model: Untrained; Accelerate places it.
        train: Training split.
        valid: Validation split.
        objective: What is trained and measured.
        trainer: Epochs, batches, precision.
        optim: Optimiser and schedule.
        config: The composed configuration.
        run: The run's folder.
        accelerator: Device, precision and processes.
        resume: Go on from the last checkpoint; a run that was stopped before its first begins anew.
        console: Is told how to go on after Ctrl-C.

    Raises:
        SpaudioError: As `spaudio.train.loop.fit`.
    """
    try:
        result = fit(
            model,
            train,
            valid,
            objective=objective,
            trainer=trainer,
            optim=optim,
            seed=config.seed,
            run=run,
            config=OmegaConf.to_yaml(config, resolve=True),
            accelerator=accelerator,
            resume=resume and any((run / "checkpoints").glob("last-*")),
        )
    except KeyboardInterrupt:
        console.print(f"stopped; the last finished epoch is kept. Go on with resume={run}")
        raise
    load_model(model, find_checkpoint(run / "checkpoints", "best"))
    return result


def batches_to_measure(feed: Feed, accelerator: Accelerator, name: str) -> Iterator[Any]:
    """Yields this process's share of a split's batches, which a progress bar counts.

    Args:
        feed: The split.
        accelerator: Places batches, and says which process this is.
        name: What the bar is called.
    """
    loader = share_out(feed.loader, accelerator)
    with progress_bar(name, len(loader), show=accelerator.is_main_process) as advance:
        for batch in loader:
            yield batch
            advance(1)


def training_facts(
    config: DictConfig,
    model: Classifier | LanguageModel,
    result: FitResult,
    *,
    prepare_seconds: float,
    test_seconds: float,
    token_seconds: float | None = None,
) -> dict[str, Any]:
    """Gathers what ``report.json`` says of every run, whatever it was trained on.

    Args:
        config: The composed configuration.
        model: The trained model.
        result: What training came to.
        prepare_seconds: Spent before training.
        test_seconds: Spent on measuring after it.
        token_seconds: Seconds from one token to the next, where tokens have any.
    """
    num_params, filter_params = count_parameters(model)
    return {
        "recipe": config.recipe,
        "filter": OmegaConf.to_container(config.filter, resolve=True),
        "filters": [describe(f, token_seconds) for f in model.encoder.token_filters()],
        "seed": config.seed,
        "best_epoch": result.best_epoch,
        "epochs": config.trainer.epochs,
        "processes": processes(),
        "num_params": num_params,
        "filter_params": filter_params,
        "seconds": {"prepare": prepare_seconds, "train": result.seconds, "test": test_seconds},
        "tokens_per_second": result.tokens_per_second,
        "step_seconds": result.step_seconds,
        "data_wait": result.data_wait,
        **provenance(),
    }
