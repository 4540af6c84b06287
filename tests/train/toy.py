"""A separable toy problem, and a run on it that can be stopped or killed anywhere."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from spaudio.audio.manifest import Clip
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.tokens.augment import Augment, AugmentConfig
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.normalise import Normaliser
from spaudio.train.checkpoint import find_checkpoint, load_weights
from spaudio.train.feed import make_feed
from spaudio.train.loop import FitResult, fit
from spaudio.train.objective import Classification
from spaudio.train.optim import OptimConfig
from spaudio.train.trainer import TrainerConfig


class ToyCache:
    """Frames whose band 0 tells the class."""

    def frames(self, path: str) -> np.ndarray:
        number = int(path)
        rng = np.random.default_rng(number)
        frames = rng.normal(size=(8 + number % 5, 6)).astype(np.float32)
        frames[:, 0] += 3 * (number % 2)
        return frames

    def length(self, path: str) -> int:
        return 8 + int(path) % 5


class ToyDataset(TokenDataset):
    """Calls ``before`` ahead of each item."""

    before: Callable[[tuple[int, int]], None] | None = None

    def __getitem__(self, item: tuple[int, int]) -> Any:
        if self.before is not None:
            self.before(item)
        return super().__getitem__(item)


def dataset(numbers: range, augment: bool = False) -> ToyDataset:
    clips = [Clip(str(n), "ab"[n % 2], "train", "g", 1.0, 8000) for n in numbers]
    normaliser = Normaliser("global", np.zeros(6, np.float32), np.ones(6, np.float32))
    return ToyDataset(
        clips,
        "ab",
        ToyCache(),  # type: ignore[arg-type]
        normaliser,
        augment=Augment(AugmentConfig(gain=0.2, time_masks=1, time_mask=0.2)) if augment else None,
    )


def make_model(dropout: float = 0.1) -> Classifier:
    config = EncoderConfig(dim=16, layers=1, heads=2, dropout=dropout)
    return Classifier(6, 2, config, {"name": "bank", "num_filters": 4})


def train(
    run: Path,
    epochs: int,
    *,
    resume: bool | None = False,
    before: Callable[[tuple[int, int]], None] | None = None,
    lr: float = 3e-3,
    dropout: float = 0.1,
    mixup: float = 0.2,
    **trainer: Any,
) -> FitResult:
    """Trains; with ``resume=None`` goes on where there is a checkpoint, as a recipe does."""
    set_seed(3)
    model = make_model(dropout)
    data = dataset(range(65), augment=True)
    data.before = before
    run.mkdir(exist_ok=True)
    config = TrainerConfig(**{"epochs": epochs, "batch_size": 8, **trainer})
    AcceleratorState._reset_state()  # of a run of another precision
    if resume is None:
        resume = any((run / "checkpoints").glob("last-*"))
    return fit(
        model,
        make_feed(data, config, shuffle=True, seed=3),
        make_feed(dataset(range(65, 98)), config, shuffle=False, seed=3),
        objective=Classification(label_smoothing=0.1, mixup=mixup),
        trainer=config,
        optim=OptimConfig(lr=lr),
        seed=3,
        run=run,
        config="seed: 3\n",
        accelerator=Accelerator(cpu=True, mixed_precision=config.precision),
        resume=resume,
    )


def last(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(find_checkpoint(run / "checkpoints", "last"))


# Processes that cost milliseconds to start: forked from one that has imported all and run nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.train.toy", "torch._dynamo"]
)  # optimisers import the latter

# What a run passes while it writes; a kill falls ahead of it.
PLACES = {
    "state": (torch, "save"),
    "sync": (os, "fsync"),
    "rename": (Path, "rename"),
    "replace": (os, "replace"),
    "remove": (shutil, "rmtree"),
}


def train_and_die(run: Path, epochs: int, place: str, count: int) -> None:
    """Goes on with a run and kills itself without a chance to clean up.

    Args:
        run: Its folder.
        epochs: Of the whole run.
        place: ``"item"`` while a batch is loaded, or one of PLACES while something is written.
        count: How many times it passes there before that; if never, the run ends.
    """
    torch.set_num_threads(1)
    left = count

    def passing(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if place != "item":
        owner, name = PLACES[place]
        original = getattr(owner, name)

        def hooked(*args: Any, **settings: Any) -> Any:
            passing()
            return original(*args, **settings)

        setattr(owner, name, hooked)
    train(run, epochs, resume=None, before=passing if place == "item" else None)


def in_processes(target: Callable[..., None], number: int, *arguments: Any) -> list[int | None]:
    """Runs ``target(*arguments)`` in so many processes that know of each other; returns codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started: list[BaseProcess] = []
    for rank in range(number):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
                       "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}  # fmt: skip
        started.append(PROCESSES.Process(target=_one, args=(environment, target, arguments)))
        started[-1].start()
    for process in started:
        process.join(120)
        process.kill()
        process.join()
    return [process.exitcode for process in started]


def _one(environment: dict[str, str], target: Callable[..., None], arguments: Any) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    target(*arguments)
