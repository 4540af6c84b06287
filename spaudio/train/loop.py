"""The training loop. It reads top to bottom: epoch, batch, loss, step, validation, checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spaudio.errors import ConfigError, SpaudioError
from spaudio.tokens.dataset import BucketSampler, TokenDataset, collate
from spaudio.train.checkpoint import find_checkpoint, load_state, load_weights, save_checkpoint
from spaudio.train.log import TrainingLog
from spaudio.train.objective import Objective
from spaudio.train.optim import OptimConfig, make_optimizer, schedule


@dataclass(frozen=True)
class TrainerConfig:
    """How to train.

    Args:
        epochs: Passes over the training split.
        batch_size: Clips a batch and process.
        precision: ``"no"`` (float32) or ``"bf16"``.
        clip_norm: Largest norm of the gradient.
        label_smoothing: Share of the target that is spread over all classes.
        workers: Processes that load batches; 0 loads in the training process.

    Raises:
        ConfigError: If a value is out of range.
    """

    epochs: int = 20
    batch_size: int = 32
    precision: str = "no"
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer.{name} must be positive; got {getattr(self, name)}")
        if self.precision not in ("no", "bf16"):
            raise ConfigError(f"trainer.precision must be 'no' or 'bf16'; got {self.precision!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"trainer.label_smoothing must lie in [0, 1); got {self.label_smoothing}"
            )
        if self.workers < 0:
            raise ConfigError(f"trainer.workers must not be negative; got {self.workers}")


@dataclass(frozen=True)
class FitResult:
    """What training leaves behind; seconds do not count validation.

    Args:
        best_epoch: Counted from 1.
        seconds: Of training.
        tokens_per_second: Tokens that are not padding.
        step_seconds: Of one optimiser step, loading of its batch included.
    """

    best_epoch: int
    seconds: float
    tokens_per_second: float
    step_seconds: float


class EpochSampler(Protocol):
    """Batches whose order and variations depend on seed and epoch alone."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, counted from 0."""
        ...


class Feed(NamedTuple):
    """A split on its way to the model.

    Args:
        loader: Batches; each has ``num_tokens``, the tokens in it that are not padding.
        sampler: What the loader asks for the order of its batches.
    """

    loader: DataLoader[Any]
    sampler: EpochSampler


def make_feed(dataset: TokenDataset, config: TrainerConfig, *, shuffle: bool, seed: int) -> Feed:
    """Builds a loader of padded batches of clips."""
    sampler = BucketSampler(dataset.lengths(), config.batch_size, shuffle=shuffle, seed=seed)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
    )
    return Feed(loader, sampler)


def fit(
    model: nn.Module,
    train: Feed,
    valid: Feed,
    *,
    objective: Objective,
    trainer: TrainerConfig,
    optim: OptimConfig,
    seed: int,
    run: Path,
    config: str,
    accelerator: Accelerator,
    resume: bool = False,
) -> FitResult:
    """Trains a model and keeps its last and its best epoch.

    The best epoch is the one that the objective ranks highest on ``valid``, which must be carved
    from the training data. No test data is seen here.

    Args:
        model: On any device; Accelerate places it.
        train: Training split.
        valid: Validation split.
        objective: What is trained, and what is measured on ``valid``.
        trainer: Epochs, batches, precision.
        optim: Optimiser and schedule.
        seed: Seeds dropout, order and variations.
        run: The run's folder; checkpoints go to ``checkpoints/``, the log to ``log.jsonl``.
        config: The composed configuration, kept with each checkpoint.
        accelerator: Device, precision and processes.
        resume: Go on from the run's last checkpoint.

    Returns:
        Best epoch, seconds and tokens a second.

    Raises:
        CheckpointError: If there is nothing to resume from.
        SpaudioError: If the loss is no longer finite.
    """
    checkpoints = run / "checkpoints"
    optimizer = make_optimizer(model, optim)
    done, best_epoch, seconds, tokens = 0, 0, 0.0, 0
    cpu_seconds = 0.0  # of all threads: unlike wall-clock, not what else the machine was doing
    best_rank: tuple[float, ...] = ()  # comes before any other
    if resume:
        checkpoint = find_checkpoint(checkpoints, "last")
        state = load_state(checkpoint)
        model.load_state_dict(load_weights(checkpoint))
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        done, best_epoch = state["epoch"], state["best_epoch"]
        best_rank = tuple(state["best_rank"])
        seconds, tokens = state["seconds"], state["tokens"]
        cpu_seconds = state["cpu_seconds"]
    model, optimizer, train_loader, valid_loader = accelerator.prepare(
        model, optimizer, train.loader, valid.loader
    )
    log = TrainingLog(run, keep=done) if accelerator.is_main_process else None
    total = trainer.epochs * len(train_loader)

    def checkpoint_last() -> None:
        if not accelerator.is_main_process:
            return
        state = {
            "epoch": done,
            "best_epoch": best_epoch,
            "best_rank": list(best_rank),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "tokens": tokens,
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_checkpoint(checkpoints, "last", done, _weights(model, accelerator), state, config)

    if not resume:
        checkpoint_last()  # so that a run that is stopped in its first epoch can be resumed too

    with _progress(accelerator) as progress:
        bar = progress.add_task("train", total=total, completed=done * len(train_loader), text="")
        for epoch in range(done, trainer.epochs):
            start, cpu_start = time.perf_counter(), time.process_time()
            # Accelerate counts epochs from 0 in each process and tells its loader's sampler; after
            # a resume both have to be told where we are.
            train.sampler.set_epoch(epoch)
            train_loader.set_epoch(epoch)
            model.train()
            losses: list[Tensor] = []
            for i, batch in enumerate(train_loader):
                step = epoch * len(train_loader) + i
                rate = schedule(step, total, optim)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = objective.loss(model, batch, np.random.default_rng([seed, step]))
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), trainer.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss.detach())
                tokens += batch.num_tokens
                progress.update(bar, advance=1, text=f"epoch {epoch + 1}/{trainer.epochs}")
            train_loss = torch.stack(losses).mean().item()
            if not np.isfinite(train_loss):
                raise SpaudioError(
                    f"the training loss of epoch {epoch + 1} is {train_loss}; lower optim.lr="
                    f"{optim.lr} and go on with resume={run}"
                )
            seconds += time.perf_counter() - start
            cpu_seconds += time.process_time() - cpu_start
            measured = objective.measure(model, valid_loader, accelerator)
            done = epoch + 1
            if measured.rank > best_rank:
                best_rank, best_epoch = measured.rank, done
                if accelerator.is_main_process:
                    weights = _weights(model, accelerator)
                    save_checkpoint(checkpoints, "best", done, weights, None, config)
            checkpoint_last()
            record: dict[str, Any] = {
                "epoch": done,
                "step": done * len(train_loader),
                "lr": rate,
                "train_loss": train_loss,
                **{f"valid_{name}": value for name, value in measured.metrics.items()},
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
            }
            if log is not None:
                log.add(record)
            progress.update(bar, text=f"epoch {done}/{trainer.epochs}  {measured.text}")
    return FitResult(best_epoch, seconds, tokens / max(seconds, 1e-9), seconds / total)


def _weights(model: nn.Module, accelerator: Accelerator) -> dict[str, Tensor]:
    """Returns the state dict without what Accelerate has wrapped around the model."""
    weights: dict[str, Tensor] = accelerator.unwrap_model(model).state_dict()
    return weights


def _progress(accelerator: Accelerator) -> Progress:
    """Returns a bar over all steps, on one process only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        disable=not accelerator.is_main_process,
    )
