"""The training loop. It reads top to bottom: epoch, batch, loss, step, validation, checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spaudio.errors import ConfigError, SpaudioError
from spaudio.tokens.dataset import BucketSampler, Example, TokenDataset, collate
from spaudio.train.checkpoint import find_checkpoint, load_model, load_state, save_checkpoint
from spaudio.train.log import TrainingLog
from spaudio.train.objective import classification_loss, predict
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


def make_loader(
    dataset: TokenDataset, config: TrainerConfig, *, shuffle: bool, seed: int
) -> tuple[DataLoader[Example], BucketSampler]:
    """Builds a loader of padded batches, and the sampler whose epoch the caller sets."""
    sampler = BucketSampler(dataset.lengths(), config.batch_size, shuffle=shuffle, seed=seed)
    loader: DataLoader[Example] = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
    )
    return loader, sampler


def fit(
    model: nn.Module,
    train: TokenDataset,
    valid: TokenDataset,
    *,
    trainer: TrainerConfig,
    optim: OptimConfig,
    mixup: float,
    seed: int,
    run: Path,
    config: str,
    accelerator: Accelerator,
    resume: bool = False,
) -> FitResult:
    """Trains a classifier and keeps its last and its best epoch.

    The best epoch is the one with the highest accuracy on ``valid`` (of equal ones that with the
    lower loss); ``valid`` must be carved from the training data. No test clip is seen here.

    Args:
        model: On any device; Accelerate places it.
        train: Training split.
        valid: Validation split.
        trainer: Epochs, batches, precision.
        optim: Optimiser and schedule.
        mixup: Parameter of mixup's Beta distribution; 0 for none.
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
    train_loader, sampler = make_loader(train, trainer, shuffle=True, seed=seed)
    valid_loader, _ = make_loader(valid, trainer, shuffle=False, seed=seed)
    done, best, seconds, tokens = 0, (-1.0, 0.0, 0), 0.0, 0
    if resume:
        checkpoint = find_checkpoint(checkpoints, "last")
        state = load_state(checkpoint)
        load_model(model, checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        done, best = state["epoch"], tuple(state["best"])
        seconds, tokens = state["seconds"], state["tokens"]
    model, optimizer, train_loader, valid_loader = accelerator.prepare(
        model, optimizer, train_loader, valid_loader
    )
    log = TrainingLog(run, keep=done) if accelerator.is_main_process else None
    total = trainer.epochs * len(train_loader)

    def checkpoint_last() -> None:
        if not accelerator.is_main_process:
            return
        state = {
            "epoch": done,
            "best": list(best),
            "seconds": seconds,
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
            start = time.perf_counter()
            # Accelerate counts epochs from 0 in each process and tells its loader's sampler; after
            # a resume both have to be told where we are.
            sampler.set_epoch(epoch)
            train_loader.set_epoch(epoch)
            model.train()
            losses: list[Tensor] = []
            for i, batch in enumerate(train_loader):
                step = epoch * len(train_loader) + i
                rate = schedule(step, total, optim)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = classification_loss(
                    model,
                    batch,
                    label_smoothing=trainer.label_smoothing,
                    mixup=mixup,
                    rng=np.random.default_rng([seed, step]),
                )
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), trainer.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss.detach())
                tokens += int((~batch.padding_mask).sum())
                progress.update(bar, advance=1, text=f"epoch {epoch + 1}/{trainer.epochs}")
            train_loss = torch.stack(losses).mean().item()
            if not np.isfinite(train_loss):
                raise SpaudioError(
                    f"the training loss of epoch {epoch + 1} is {train_loss}; lower optim.lr="
                    f"{optim.lr} and go on with resume={run}"
                )
            seconds += time.perf_counter() - start
            scores = predict(model, valid_loader, accelerator)
            done = epoch + 1
            if (scores.accuracy, -scores.loss) > best[:2]:
                best = (scores.accuracy, -scores.loss, done)
                if accelerator.is_main_process:
                    weights = _weights(model, accelerator)
                    save_checkpoint(checkpoints, "best", done, weights, None, config)
            checkpoint_last()
            record: dict[str, Any] = {
                "epoch": done,
                "step": done * len(train_loader),
                "lr": rate,
                "train_loss": train_loss,
                "valid_loss": scores.loss,
                "valid_accuracy": scores.accuracy,
                "seconds": seconds,
            }
            if log is not None:
                log.add(record)
            progress.update(bar, text=f"epoch {done}/{trainer.epochs}  valid {scores.accuracy:.3f}")
    return FitResult(best[2], seconds, tokens / max(seconds, 1e-9), seconds / total)


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
