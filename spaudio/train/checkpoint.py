"""Checkpoints: weights as safetensors, the trainer's state apart, never half-written.

A checkpoint is a folder ``<name>-<epoch>`` that is filled under a temporary name and renamed at
the end; the one before it goes only then. So there is always a whole one to go on from.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spaudio.errors import CheckpointError

WEIGHTS = "model.safetensors"
STATE = "trainer.pt"


def save_checkpoint(
    folder: Path,
    name: str,
    epoch: int,
    weights: dict[str, Tensor],
    state: dict[str, Any] | None = None,
    config: str | None = None,
) -> Path:
    """Writes a checkpoint and then removes the older ones of the same name.

    Args:
        folder: The run's checkpoint folder.
        name: ``"last"`` or ``"best"``.
        epoch: Epochs finished.
        weights: The model's state dict.
        state: What else is needed to go on: tensors, numbers, strings and containers of them.
        config: The composed configuration, as YAML, so that the checkpoint explains itself.

    Returns:
        The checkpoint's folder.
    """
    target = folder / f"{name}-{epoch:04d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    save_file(tensors, temporary / WEIGHTS, metadata={"epoch": str(epoch)})
    if state is not None:
        torch.save(state, temporary / STATE)
    if config is not None:
        (temporary / "config.yaml").write_text(config, encoding="utf-8")
    for file in temporary.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    if target.exists():  # the same epoch once more, after a resume
        shutil.rmtree(target)
    temporary.rename(target)
    for older in _existing(folder, name)[:-1]:
        shutil.rmtree(older)
    return target


def find_checkpoint(folder: Path, name: str) -> Path:
    """Returns the newest checkpoint of a name.

    Raises:
        CheckpointError: If there is none.
    """
    existing = _existing(folder, name)
    if not existing:
        raise CheckpointError(
            f"no checkpoint {name!r} in {folder}; the run was stopped before its first one or the "
            "folder is not a run's"
        )
    return existing[-1]


def load_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Reads a checkpoint's weights.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    try:
        return load_file(checkpoint / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {checkpoint / WEIGHTS}: {error}") from error


def load_model(model: nn.Module, checkpoint: Path) -> None:
    """Puts a checkpoint's weights into a model of the same architecture.

    Raises:
        CheckpointError: If the file is missing or damaged, or belongs to another architecture.
    """
    weights = load_weights(checkpoint)
    saved = {name: tuple(value.shape) for name, value in weights.items()}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    differing = [n for n in (*wanted, *saved) if saved.get(n) != wanted.get(n)]
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"{checkpoint} holds another architecture than its config.yaml tells: {name} is "
            f"{saved.get(name, 'absent')} where {wanted.get(name, 'none')} is expected, and so on "
            f"for {len(set(differing))} of {len(saved.keys() | wanted.keys())} names. Put back the "
            "config.yaml that the run began with, or start a new run"
        )
    model.load_state_dict(weights)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Reads a checkpoint's trainer state; nothing in it can run code.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(
            checkpoint / STATE, map_location="cpu", weights_only=True
        )
    except Exception as error:  # torch raises anything from KeyError to UnpicklingError here
        raise CheckpointError(f"cannot read {checkpoint / STATE}: {error}") from error
    return state


def _existing(folder: Path, name: str) -> list[Path]:
    """Returns the finished checkpoints of a name, oldest first."""
    return sorted(folder.glob(f"{name}-[0-9][0-9][0-9][0-9]"))
