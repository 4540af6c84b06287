"""The training loop: epoch, batch, loss, step, validation, checkpoint."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from spaudio.errors import SpaudioError, some
from spaudio.io.lock import claimed
from spaudio.training.checkpoint import (
    TRAINING,
    Stage,
    drop_later,
    find_checkpoint,
    load_model,
    load_state,
    save_checkpoint,
)
from spaudio.training.ema import WeightAverage
from spaudio.training.failures import named_failures
from spaudio.training.feed import Feed
from spaudio.training.log import TrainingLog
from spaudio.training.objective import Objective
from spaudio.training.optim import make_optimizer, schedule
from spaudio.training.random_state import random_states, restore_random_state, seed_process
from spaudio.training.shards import gather, share_out, split_up, take_buffers_of_first
from spaudio.training.trainer_config import OptimConfig, TrainerConfig

LEAST_STEPS = 1500  # never cut by `max_epochs`: even the smallest dataset needs as many
VALIDATIONS = 50  # about as many in a run that `min_steps` prolongs; more are not worth their cost
CHECK = 50  # steps between checks of the losses, each of which waits for the GPU


@dataclass(frozen=True)
class FitResult:
    """The result of training; seconds exclude validation.

    Args:
        best_epoch: Best epoch, counted from 1; 0 is the model as fitted before training.
        epochs: Total number of epochs.
        seconds: Seconds of training, including the fit before it.
        tokens_per_second: Tokens per second, without padding; None without optimizer steps.
        step_seconds: Seconds per optimizer step, including the loading of its batch; None without
            steps, as in a probe, whose head is fitted.
        data_wait: Share of ``seconds`` spent waiting for batches, 0 to 1.
    """

    best_epoch: int
    epochs: int
    seconds: float
    tokens_per_second: float | None
    step_seconds: float | None
    data_wait: float


@dataclass(frozen=True)
class Fitted:
    """Result of fitting a model before training.

    Args:
        loss: Training loss.
        seconds: Seconds that the fit took.
    """

    loss: float
    seconds: float


@dataclass
class SoFar:
    """Progress of a run, as stored in its checkpoints.

    Args:
        epochs: Finished epochs.
        best_epoch: Best epoch, counted from 1; 0 if there is none, or for the model as fitted
            before training.
        best_rank: Rank of that epoch; the empty tuple is below every rank.
        seconds: Seconds of training, without validation.
        cpu_seconds: CPU time of all threads, unaffected by other load on the machine.
        waited: Seconds spent waiting for batches.
        tokens: Tokens that this process trained on, without padding.
        before: Seconds of fitting before the first step.
    """

    epochs: int = 0
    best_epoch: int = 0
    best_rank: tuple[float, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited: float = 0.0
    tokens: int = 0
    before: float = 0.0


@contextmanager
def exclusive(run: Path, accelerator: Accelerator) -> Iterator[None]:
    """Prevents other processes from training the run, and turns failures into one-line errors.

    Raises:
        SpaudioError: If another process trains the run, or as in
            :func:`spaudio.training.failures.named_failures`.
    """
    claim = claimed(run) if accelerator.is_main_process else nullcontext()
    with named_failures(run), claim:
        yield


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
    select: bool = True,
    stage: Stage = TRAINING,
    fitted: Fitted | None = None,
) -> FitResult:
    """Trains a model and keeps its last and its best epoch.

    Each epoch (or one in every few, if ``min_steps`` extends the run) is measured on ``valid`` and
    kept in a checkpoint. The best epoch is the one that the objective ranks highest. No test data
    is used. Call it within :func:`exclusive`.

    Args:
        model: On any device; Accelerate places it.
        train: Training split.
        valid: Validation split.
        objective: Training loss, and metrics on ``valid``.
        trainer: Epochs, batches, precision.
        optim: Optimizer and schedule.
        seed: Seeds dropout, order and augmentation.
        run: The run's folder; checkpoints go to ``checkpoints/``.
        config: The settings as YAML, kept with each checkpoint.
        accelerator: Device, precision and processes.
        resume: Continue from the run's last checkpoint.
        select: Whether ``valid`` selects the best epoch; otherwise it is the last one.
        stage: Names of checkpoints and log.
        fitted: Result of fitting the model before training; None if it was not fitted. The fitted
            model is measured as epoch 0, which is kept unless a later epoch ranks higher. Ignored
            with ``resume``.

    Returns:
        Best epoch, seconds and tokens per second.

    Raises:
        CheckpointError: If there is nothing to resume from, or a checkpoint cannot be written.
        SpaudioError: If the loss is not finite; raised at most ``CHECK`` steps later.
    """
    checkpoints = run / "checkpoints"
    optimizer = make_optimizer(model, optim)
    so_far = SoFar()
    if resume:
        checkpoint = find_checkpoint(checkpoints, stage.last)
        state = load_state(checkpoint)
        load_model(model, checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        restore_random_state(state["rng"], seed, accelerator)
        so_far = SoFar(**state["so_far"])
        if accelerator.process_index:
            so_far.tokens = 0  # the total is kept by the first process
        accelerator.wait_for_everyone()  # before a checkpoint is removed, all must have read it
        if accelerator.is_main_process:
            drop_later(checkpoints, stage.best, so_far.best_epoch)
    else:
        seed_process(seed, accelerator)
    average = WeightAverage(model, trainer.ema) if trainer.ema else None
    if average is not None:
        average.model.to(accelerator.device)
        if resume:
            average.model.load_state_dict(state["average"])
    model, optimizer = accelerator.prepare(model, optimizer)
    train_loader, share = split_up(train.loader, accelerator, trainer.accumulate)
    valid_loader = share_out(valid.loader, accelerator)
    kept = so_far.epochs if resume else -1
    log = TrainingLog(run, kept, stage.log) if accelerator.is_main_process else None
    steps = len(train.sampler)  # per epoch
    epochs = max(trainer.epochs, prolonged(trainer, steps))
    total = epochs * steps
    # On a small dataset, several epochs lie between two validations.
    period = max(1, epochs // max(trainer.epochs, VALIDATIONS))

    def checkpoint_last() -> None:
        rng, tokens = random_states(accelerator), sum(gather([so_far.tokens], accelerator))
        if not accelerator.is_main_process:
            return
        state = {
            "so_far": {**asdict(so_far), "tokens": tokens},
            "optimizer": optimizer.state_dict(),
            "rng": rng,
            **({} if average is None else {"average": average.model.state_dict()}),
        }
        weights = accelerator.unwrap_model(model).state_dict()
        save_checkpoint(checkpoints, stage.last, so_far.epochs, weights, state, config)

    def validate(train_loss: float, rate: float) -> str:
        scored = accelerator.unwrap_model(model) if average is None else average.model
        take_buffers_of_first(scored)
        measured = objective.measure(scored, valid_loader, accelerator)
        record: dict[str, Any] = {
            "epoch": so_far.epochs,
            "step": so_far.epochs * steps,
            "lr": rate,
            "train_loss": train_loss,
            **{f"valid_{name}": value for name, value in measured.metrics.items()},
            "seconds": so_far.before + so_far.seconds,
            "cpu_seconds": so_far.cpu_seconds,
            "wait_seconds": so_far.waited,
        }
        if log is not None:
            log.add(record)  # before the checkpoint: a resumed run drops records without one
        if measured.rank > so_far.best_rank if select else so_far.epochs == epochs:
            so_far.best_rank, so_far.best_epoch = measured.rank, so_far.epochs
            if accelerator.is_main_process:
                weights = accelerator.unwrap_model(scored).state_dict()
                save_checkpoint(checkpoints, stage.best, so_far.epochs, weights, None, config)
        return measured.text

    if not resume:
        if fitted is not None:
            so_far.before = fitted.seconds
            validate(fitted.loss, 0.0)
        checkpoint_last()  # a run that is stopped in its first epoch can be resumed too

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
        disable=not accelerator.is_main_process,
    ) as progress:
        bar = progress.add_task(stage.title, total=total, completed=so_far.epochs * steps, text="")
        for epoch in range(so_far.epochs, epochs):
            start, cpu_start = time.perf_counter(), time.process_time()
            train.sampler.set_epoch(epoch)
            model.train()
            losses: list[Tensor] = []
            norms: list[Tensor] = []
            checked: list[float] = []
            counts: list[Tensor | int] = []
            batches = iter(train_loader)
            for i, items in enumerate(train.sampler):
                step = epoch * steps + i
                rate = schedule(step, total, optim)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get("share", 1.0)  # checkpoints may lack it
                loss = torch.zeros((), device=accelerator.device)
                parts = share.filled(items)
                for part in range(parts):
                    asked = time.perf_counter()
                    batch = next(batches)
                    so_far.waited += time.perf_counter() - asked
                    # So that the mean over processes, summed over parts, is the mean over clips.
                    own = len(share.own(items, part))
                    weight = own * accelerator.num_processes / len(items)
                    whole = part + 1 == parts
                    # Each process and part mixes and masks by its own numbers.
                    number = part * accelerator.num_processes + accelerator.process_index
                    with nullcontext() if whole else accelerator.no_sync(model):
                        rng = np.random.default_rng([seed, step, *([number] if number else [])])
                        lost = weight * objective.loss(model, batch, rng)
                        accelerator.backward(lost)
                    loss += lost.detach()
                    if own:
                        counts.append(batch.num_tokens)  # not read here, which waits for the GPU
                norm = accelerator.clip_grad_norm_(model.parameters(), trainer.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if average is not None:
                    average.update(accelerator.unwrap_model(model), step)
                losses.append(loss)
                norms.append(norm.detach().float())
                if len(losses) == CHECK or i + 1 == steps:
                    checked += _finite(losses, norms, i, epoch, train, run, optim, accelerator)
                    losses.clear()
                    norms.clear()
                progress.update(bar, advance=1, text=f"epoch {epoch + 1}/{epochs}")
            train_loss = float(np.mean(checked))
            so_far.seconds += time.perf_counter() - start
            so_far.cpu_seconds += time.process_time() - cpu_start
            so_far.tokens += int(sum(counts))
            so_far.epochs += 1
            if so_far.epochs % period and so_far.epochs < epochs:
                continue
            text = validate(train_loss, rate)
            checkpoint_last()
            progress.update(bar, text=f"epoch {so_far.epochs}/{epochs}  {text}")
    accelerator.wait_for_everyone()  # all processes read what the first one has written
    seconds = max(so_far.seconds, 1e-9)
    return FitResult(
        best_epoch=so_far.best_epoch,
        epochs=epochs,
        seconds=so_far.before + so_far.seconds,
        tokens_per_second=sum(gather([so_far.tokens], accelerator)) / seconds,
        step_seconds=so_far.seconds / total,
        data_wait=so_far.waited / seconds,
    )


def _finite(
    losses: list[Tensor],
    norms: list[Tensor],
    last: int,
    epoch: int,
    train: Feed,
    run: Path,
    optim: OptimConfig,
    accelerator: Accelerator,
) -> list[float]:
    """Returns the losses of the steps of an epoch up to ``last``, over all processes.

    Raises:
        SpaudioError: If a loss or the norm of its gradient is not finite; names the batch. The
            weights are then not finite either, and must not be saved.
    """
    values: list[float] = accelerator.reduce(torch.stack(losses), "mean").tolist()
    of_gradients = accelerator.reduce(torch.stack(norms), "mean").tolist()
    for step, (loss, norm) in enumerate(
        zip(values, of_gradients, strict=True), last + 1 - len(values)
    ):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what, value = "gradient", norm
            if not math.isfinite(loss):
                what, value = "training loss", loss
            items = next(islice(iter(train.sampler), step, None))
            named = some(_named(train.loader.dataset, items), 10)
            raise SpaudioError(
                f"the {what} of epoch {epoch + 1}, step {step + 1} is {value}: the batch of "
                f"{named}. Lower optim.lr={optim.lr} in a new run, or check these "
                f"items; the last checkpoint is intact (continue from it with resume={run})"
            )
    return values


def _named(dataset: Any, items: Sequence[Any]) -> list[str]:
    """Returns the names of items: files of clips, or numbers of text windows."""
    if not hasattr(dataset, "clip"):
        return [f"window {item}" for item in items]
    return [dataset.clip(index).path for _, index in items]


def prolonged(trainer: TrainerConfig, steps: int) -> int:
    """Returns the number of epochs that `min_steps` requires, with ``steps`` steps per epoch."""
    least = math.ceil(min(trainer.min_steps, LEAST_STEPS) / steps)
    return min(math.ceil(trainer.min_steps / steps), max(trainer.max_epochs, least))
