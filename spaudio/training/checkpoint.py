"""Checkpoints: weights as safetensors, the trainer's state in a separate file, never half-written.

A checkpoint is a folder ``<name>-<epoch>`` that is filled under a temporary name and renamed at
the end. The newest two of each name are kept. Each holds the SHA-256 of its files; if the newest
is damaged, the previous one is used.
"""

import hashlib
import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spaudio.errors import CheckpointError, first_line
from spaudio.io.plain import read_json


@dataclass(frozen=True)
class Stage:
    """Names that a training stage uses for its progress bar and files.

    Args:
        title: Title of the progress bar.
        last: Name of the checkpoints to continue from.
        best: Name of the checkpoints of the best epoch.
        log: Name of the log, without its suffix.
    """

    title: str
    last: str
    best: str
    log: str


TRAINING = Stage("train", "last", "best", "log")
PRETRAINING = Stage("pretrain", "pretraining", "pretrained", "pretraining")
CHECKPOINTS = "checkpoints"  # folder of a run's checkpoints, in that of the run
WEIGHTS = "model.safetensors"
STATE = "trainer.pt"
HASHES = "sha256.json"
KEPT = 2  # checkpoints per name, so that one may be damaged


def save_checkpoint(
    folder: Path,
    name: str,
    epoch: int,
    weights: dict[str, Tensor],
    state: dict[str, Any] | None = None,
    config: str | None = None,
) -> Path:
    """Writes a checkpoint, then removes all but the newest two of the same name.

    Args:
        folder: The run's checkpoint folder.
        name: ``last`` or ``best`` of a stage.
        epoch: Epochs finished.
        weights: The model's state dict.
        state: Everything else needed to resume: tensors, numbers, strings and containers of these.
        config: The settings of the run as YAML, kept with the weights.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: If it cannot be written; earlier checkpoints are kept.
    """
    target = folder / f"{name}-{epoch:04d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    try:
        for left in folder.glob(f".{name}-*"):  # left by a killed process
            shutil.rmtree(left)
        temporary.mkdir(parents=True)
        save_file(tensors, temporary / WEIGHTS, metadata={"epoch": str(epoch)})
        if state is not None:
            torch.save(state, temporary / STATE)
        if config is not None:
            (temporary / "config.yaml").write_text(config, encoding="utf-8")
        hashes = {file.name: _hash(file) for file in sorted(temporary.iterdir())}
        (temporary / HASHES).write_text(json.dumps(hashes), encoding="utf-8")
        for file in temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if target.exists():  # the epoch is repeated after a resume
            _remove(target)
        temporary.rename(target)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises the last one
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot write {target}: {first_line(error)}. Earlier checkpoints "
            "are kept. Free space or make the folder writable, then continue with "
            f"resume={folder.parent}"
        ) from error
    for older in _existing(folder, name)[:-KEPT]:
        _remove(older)
    return target


def find_checkpoint(folder: Path, name: str, newest: int | None = None) -> Path:
    """Returns the newest undamaged checkpoint of a name; warns about newer damaged ones.

    Args:
        folder: Folder of the checkpoints.
        name: Their name.
        newest: Later epochs are left out, unless there are only such.

    Raises:
        CheckpointError: If there is none.
    """
    existing = _existing(folder, name)
    known = [one for one in existing if newest is None or epoch_of(one) <= newest]
    for checkpoint in reversed(known or existing):
        damaged = _damaged(checkpoint)
        if damaged is None:
            return checkpoint
        warnings.warn(f"{checkpoint / damaged} is damaged and is not used", stacklevel=2)
    if existing:
        raise CheckpointError(f"every checkpoint {name!r} in {folder} is damaged; start a new run")
    raise CheckpointError(
        f"no checkpoint {name!r} in {folder}; the run was stopped before it wrote one, or this "
        "is not the folder of a run"
    )


def has_checkpoint(folder: Path, name: str) -> bool:
    """Whether there is a checkpoint of a name, damaged or not."""
    return bool(_existing(folder, name))


def drop_later(folder: Path, name: str, epoch: int) -> None:
    """Removes checkpoints after ``epoch`` if that one exists; a resumed run repeats them."""
    existing = _existing(folder, name)
    if epoch in map(epoch_of, existing):
        for checkpoint in existing:
            if epoch_of(checkpoint) > epoch:
                _remove(checkpoint)


def load_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Reads a checkpoint's weights.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    try:
        return load_file(checkpoint / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise _unreadable(checkpoint / WEIGHTS, error) from error


def load_model(model: nn.Module, checkpoint: Path) -> None:
    """Loads a checkpoint's weights into a model of the same architecture.

    Raises:
        CheckpointError: If the file is missing or damaged, or has a different architecture.
    """
    weights = load_weights(checkpoint)
    saved = {name: tuple(value.shape) for name, value in weights.items()}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    differing = [n for n in (*wanted, *saved) if saved.get(n) != wanted.get(n)]
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"{checkpoint} has a different architecture than its config.yaml: {name} is "
            f"{saved.get(name, 'absent')} where {wanted.get(name, 'none')} is expected; in total, "
            f"{len(set(differing))} of {len(saved.keys() | wanted.keys())} names differ. Restore "
            "the config.yaml that the run started with, or start a new run"
        )
    model.load_state_dict(weights)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Reads a checkpoint's trainer state. Code in the file is never executed.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(  # noqa: TID251
            checkpoint / STATE, map_location="cpu", weights_only=True
        )
    except Exception as error:  # torch raises anything from KeyError to UnpicklingError here
        raise _unreadable(checkpoint / STATE, error) from error
    return state


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot read {file}: {error}; restore it (fetch it, if it is a pointer of Git LFS), or "
        "start a new run"
    )


def _existing(folder: Path, name: str) -> list[Path]:
    """Returns the finished checkpoints of a name, oldest first."""
    found = [path for path in folder.glob(f"{name}-*") if path.name[len(name) + 1 :].isdecimal()]
    return sorted(found, key=epoch_of)


def epoch_of(checkpoint: Path) -> int:
    """Returns the number of epochs that were finished when a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _damaged(checkpoint: Path) -> str | None:
    """Returns the name of a file that is missing, changed or cannot be read, or None.

    Raises:
        PermissionError: If a file may not be read; the user can correct this.
    """
    file = checkpoint / HASHES
    try:
        if not file.is_file():
            return None  # written by hand; loading it reports any damage
        hashes = read_json(file)
        if not isinstance(hashes, dict):
            return HASHES
        for name, expected in hashes.items():
            file = checkpoint / name
            if not file.is_file() or _hash(file) != expected:
                return str(name)
    except PermissionError:
        raise
    except (ValueError, OSError):  # no JSON, or a disk that fails
        return file.name
    return None


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint, renaming it first so that a kill never leaves a partial one."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    checkpoint.rename(hidden)
    shutil.rmtree(hidden)
