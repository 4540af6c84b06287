"""The training loop: epoch, batch, loss, step, validation, checkpoint."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from spaudio.errors import SpaudioError, some
from spaudio.io.lock import claimed
from spaudio.io.progress import progress_bar
from spaudio.training.checkpoint import (
    CHECKPOINTS,
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
from spaudio.training.log import TrainingLog
from spaudio.training.objective import Objective
from spaudio.training.optim import make_optimizer, schedule
from spaudio.training.random_state import random_states, restore_random_state, seed_process
from spaudio.training.shards import gather, shard_batches, split_batches, take_buffers_of_first
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
        data_wait: Share of the time spent waiting for batches, 0 to 1: of the steps or, without
            steps, of the fit.
        measured: Results on splits that were measured before the model was trained on their clips.
    """

    best_epoch: int
    epochs: int
    seconds: float
    tokens_per_second: float | None
    step_seconds: float | None
    data_wait: float
    measured: dict[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True)
class TrainingRun:
    """The run that a model is trained in.

    Args:
        folder: The run's folder; checkpoints go to ``checkpoints/``.
        config: The settings as YAML, kept with each checkpoint.
        accelerator: Device, precision and processes.
        resume: Continue from the run's last checkpoint.
    """

    folder: Path
    config: str
    accelerator: Accelerator
    resume: bool = False


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


class TrainingLoop:
    """Trains a model and keeps its last and its best epoch.

    Each epoch (or one in every few, if ``min_steps`` extends the run) is measured on ``valid`` and
    kept in a checkpoint. The best epoch is the one that the objective ranks highest. No test data
    is used. Use it within :func:`exclusive`.

    Args:
        model: On any device; Accelerate places it.
        train: Loader of the training split, from :func:`spaudio.training.loader.batch_loader`.
        valid: Loader of the validation split.
        run: Where checkpoints go, and which devices are used.
        objective: Training loss, and metrics on ``valid``.
        trainer: Epochs, batches, precision.
        optim: Optimizer and schedule.
        seed: Seeds dropout, order and augmentation.
        select: Whether ``valid`` selects the best epoch; otherwise it is the last one.
        stage: Names of checkpoints and log.

    Raises:
        CheckpointError: If there is nothing to resume from.
    """

    def __init__(
        self,
        model: nn.Module,
        train: DataLoader[Any],
        valid: DataLoader[Any],
        run: TrainingRun,
        *,
        objective: Objective,
        trainer: TrainerConfig,
        optim: OptimConfig,
        seed: int,
        select: bool = True,
        stage: Stage = TRAINING,
    ) -> None:
        self.train, self.run, self.objective = train, run, objective
        self.sampler: Any = train.batch_sampler
        self.trainer, self.optim, self.seed = trainer, optim, seed
        self.select, self.stage = select, stage
        self.accelerator = accelerator = run.accelerator
        self.checkpoints = run.folder / CHECKPOINTS
        self.steps = len(train)  # per epoch
        self.epochs = total_epochs(trainer, self.steps)
        self.so_far = SoFar()
        optimizer = make_optimizer(model, optim)
        state: dict[str, Any] = {}
        if run.resume:
            state = self._resume(model, optimizer)
        else:
            seed_process(seed, accelerator)
        self.average = WeightAverage(model, trainer.ema) if trainer.ema else None
        if self.average is not None:
            self.average.model.to(accelerator.device)
            if run.resume:
                self.average.model.load_state_dict(state["average"])
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.train_loader, self.split = split_batches(train, accelerator, trainer.accumulate)
        self.valid_loader = shard_batches(valid, accelerator)
        self.log = None
        if accelerator.is_main_process:
            kept = self.so_far.epochs if run.resume else -1
            self.log = TrainingLog(run.folder, kept, stage.log)

    def _resume(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Restores everything but the average from the last checkpoint; returns its state."""
        checkpoint = find_checkpoint(self.checkpoints, self.stage.last)
        state = load_state(checkpoint)
        load_model(model, checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        restore_random_state(state["rng"], self.seed, self.accelerator)
        self.so_far = SoFar(**state["so_far"])
        if self.accelerator.process_index:
            self.so_far.tokens = 0  # the total is kept by the first process
        # Before a checkpoint is removed, all must have read it.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            drop_later(self.checkpoints, self.stage.best, self.so_far.best_epoch)
        return state

    def fit(self, fitted: Fitted | None = None) -> FitResult:
        """Runs all epochs that are left.

        Args:
            fitted: Result of fitting the model before training; None if it was not fitted. The
                fitted model is measured as epoch 0, which is kept unless a later epoch ranks
                higher. Ignored if the run is resumed.

        Returns:
            Best epoch, seconds and tokens per second.

        Raises:
            CheckpointError: If a checkpoint cannot be written.
            SpaudioError: If a loss or a gradient is not finite; raised at most ``CHECK`` steps
                later.
        """
        so_far, accelerator = self.so_far, self.accelerator
        if not self.run.resume:
            if fitted is not None:
                so_far.before = fitted.seconds
                self._validate(fitted.loss)
            self._save_last()  # a run that is stopped in its first epoch can be resumed too
        # On a small dataset, several epochs lie between two validations.
        period = max(1, self.epochs // max(self.trainer.epochs, VALIDATIONS))
        total = self.epochs * self.steps
        bar = progress_bar(
            self.stage.title,
            total,
            done=so_far.epochs * self.steps,
            with_text=True,
            show=accelerator.is_main_process,
        )
        with bar as advance:
            measured = ""  # in the latest validation
            for epoch in range(so_far.epochs, self.epochs):
                text = f"epoch {epoch + 1}/{self.epochs}"
                train_loss = self._train_epoch(epoch, partial(advance, 1, f"{text}  {measured}"))
                if so_far.epochs % period and so_far.epochs < self.epochs:
                    continue
                measured = self._validate(train_loss)
                self._save_last()
                advance(0, f"{text}  {measured}")
        accelerator.wait_for_everyone()  # all processes read what the first one has written
        seconds = max(so_far.seconds, 1e-9)
        return FitResult(
            best_epoch=so_far.best_epoch,
            epochs=self.epochs,
            seconds=so_far.before + so_far.seconds,
            tokens_per_second=sum(gather([so_far.tokens], accelerator)) / seconds,
            step_seconds=so_far.seconds / total,
            data_wait=so_far.waited / seconds,
        )

    def _train_epoch(self, epoch: int, advance: Callable[[], None]) -> float:
        """Trains for one epoch, calling ``advance`` after each step; returns the mean loss."""
        so_far = self.so_far
        start, cpu_start = time.perf_counter(), time.process_time()
        self.sampler.set_epoch(epoch)
        self.model.train()
        checked: list[float] = []
        losses: list[Tensor] = []
        norms: list[Tensor] = []
        tokens: Tensor | int = 0  # not read before the end of the epoch, which waits for the GPU
        batches = iter(self.train_loader)
        for i, items in enumerate(self.sampler):
            loss, norm, seen = self._train_step(epoch * self.steps + i, items, batches)
            losses.append(loss)
            norms.append(norm)
            tokens = tokens + seen
            if len(losses) == CHECK or i + 1 == self.steps:
                checked += self._finite(losses, norms, epoch, i)
                losses.clear()
                norms.clear()
            advance()
        so_far.seconds += time.perf_counter() - start
        so_far.cpu_seconds += time.process_time() - cpu_start
        so_far.tokens += int(tokens)
        so_far.epochs += 1
        return float(np.mean(checked))

    def _train_step(
        self, step: int, items: list[Any], batches: Iterator[Any]
    ) -> tuple[Tensor, Tensor, Tensor | int]:
        """Takes one optimizer step, in parts if gradients are accumulated.

        Args:
            step: Number of the step, from 0.
            items: Items of the batch, in all processes.
            batches: This process's parts of the batches.

        Returns:
            The loss of this process's items, the norm of the gradient, and the number of tokens.
        """
        accelerator = self.accelerator
        rate = schedule(step, self.epochs * self.steps, self.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        loss = torch.zeros((), device=accelerator.device)
        tokens: Tensor | int = 0
        parts = self.split.filled(items)
        for part in range(parts):
            asked = time.perf_counter()
            batch = next(batches)
            self.so_far.waited += time.perf_counter() - asked
            # So that the mean over processes, summed over parts, is the mean over clips.
            own = len(self.split.own(items, part))
            weight = own * accelerator.num_processes / len(items)
            # Each process and part mixes and masks by its own numbers.
            number = part * accelerator.num_processes + accelerator.process_index
            rng = np.random.default_rng([self.seed, step, *([number] if number else [])])
            last = part + 1 == parts
            with nullcontext() if last else accelerator.no_sync(self.model):
                lost = weight * self.objective.loss(self.model, batch, rng)
                accelerator.backward(lost)
            loss += lost.detach()
            if own:
                tokens = tokens + batch.num_tokens
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.trainer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(accelerator.unwrap_model(self.model), step)
        return loss, norm.detach().float(), tokens

    def _finite(
        self, losses: list[Tensor], norms: list[Tensor], epoch: int, last: int
    ) -> list[float]:
        """Returns the losses of the steps of an epoch up to ``last``, over all processes.

        Raises:
            SpaudioError: If a loss or the norm of its gradient is not finite; names the batch. The
                weights are then not finite either, and must not be saved.
        """
        values: list[float] = self.accelerator.reduce(torch.stack(losses), "mean").tolist()
        of_gradients = self.accelerator.reduce(torch.stack(norms), "mean").tolist()
        for step, (loss, norm) in enumerate(
            zip(values, of_gradients, strict=True), last + 1 - len(values)
        ):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what, value = "gradient", norm
                if not math.isfinite(loss):
                    what, value = "training loss", loss
                items = next(islice(iter(self.sampler), step, None))
                named = some(_named(self.train.dataset, items), 10)
                raise SpaudioError(
                    f"the {what} of epoch {epoch + 1}, step {step + 1} is {value}, in the batch of "
                    f"{named}. Lower optim.lr={self.optim.lr} in a new run, or check these items; "
                    "the last checkpoint is intact (continue from it with "
                    f"resume={self.run.folder})"
                )
        return values

    def _validate(self, train_loss: float) -> str:
        """Measures the validation split, logs the epoch, and saves the weights if it is the best.

        Returns:
            The metrics as text.
        """
        so_far, accelerator = self.so_far, self.accelerator
        model = accelerator.unwrap_model(self.model) if self.average is None else self.average.model
        take_buffers_of_first(model)
        measured = self.objective.measure(model, self.valid_loader, accelerator)
        step = so_far.epochs * self.steps
        rate = schedule(step - 1, self.epochs * self.steps, self.optim) if step else 0.0
        record: dict[str, Any] = {
            "epoch": so_far.epochs,
            "step": step,
            "lr": rate,
            "train_loss": train_loss,
            **{f"valid_{name}": value for name, value in measured.metrics.items()},
            "seconds": so_far.before + so_far.seconds,
            "cpu_seconds": so_far.cpu_seconds,
            "wait_seconds": so_far.waited,
        }
        if self.log is not None:
            self.log.add(record)  # before the checkpoint: a resumed run drops records without one
        if measured.rank > so_far.best_rank if self.select else so_far.epochs == self.epochs:
            so_far.best_rank, so_far.best_epoch = measured.rank, so_far.epochs
            if accelerator.is_main_process:
                self._save(self.stage.best, model.state_dict())
        return measured.text

    def _save_last(self) -> None:
        """Saves all that a resumed run needs; every process calls it, the first one writes."""
        accelerator = self.accelerator
        rng, tokens = random_states(accelerator), sum(gather([self.so_far.tokens], accelerator))
        if not accelerator.is_main_process:
            return
        state = {
            "so_far": {**asdict(self.so_far), "tokens": tokens},
            "optimizer": self.optimizer.state_dict(),
            "rng": rng,
            **({} if self.average is None else {"average": self.average.model.state_dict()}),
        }
        self._save(self.stage.last, accelerator.unwrap_model(self.model).state_dict(), state)

    def _save(
        self, name: str, weights: dict[str, Tensor], state: dict[str, Any] | None = None
    ) -> None:
        save_checkpoint(self.checkpoints, name, self.so_far.epochs, weights, state, self.run.config)


def _named(dataset: Any, items: Sequence[Any]) -> list[str]:
    """Returns the names of items: files of clips, or numbers of text windows."""
    if not hasattr(dataset, "clip"):
        return [f"window {item}" for item in items]
    return [dataset.clip(index).path for _, index in items]


def total_epochs(trainer: TrainerConfig, steps: int) -> int:
    """Returns the epochs of a run, of ``steps`` steps each.

    `min_steps` may ask for more than `epochs`, but not for more than `max_epochs`.
    """
    least = math.ceil(min(trainer.min_steps, LEAST_STEPS) / steps)
    prolonged = min(math.ceil(trainer.min_steps / steps), max(trainer.max_epochs, least))
    return max(trainer.epochs, prolonged)
