"""Runs in several processes, started by ``torchrun`` or by a launcher."""

import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from spaudio.errors import ConfigError
from spaudio.experiment.run_folder import create_run_folder
from spaudio.experiment.settings import Settings
from spaudio.training.allocator import keep_freed_memory
from spaudio.training.trainer_config import TrainerConfig

# Other processes wait while the first prepares a dataset; the default timeout is minutes.
PATIENCE = timedelta(hours=24)
_TORCHRUN = "start them with torchrun, on each machine with the same --nnodes and --rdzv-endpoint"


def processes() -> int:
    """Returns the number of processes that ``torchrun`` has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Returns whether this is the process that prints and writes."""
    return processes() == 1 or int(os.environ.get("RANK", "0")) == 0  # schedulers set RANK, too


def choose_precision(trainer: TrainerConfig) -> str:
    """Returns ``"bf16"`` or ``"no"``; ``"auto"`` is bf16 if the hardware supports it."""
    if trainer.precision != "auto":
        return trainer.precision
    if trainer.device == "auto" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "no"


def make_accelerator(trainer: TrainerConfig) -> Accelerator:
    """Creates the accelerator, which joins the processes of a run.

    Raises:
        ConfigError: If they cannot be joined.
    """
    set_by_torchrun = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in set_by_torchrun if name not in os.environ]
    if processes() > 1 and missing:  # otherwise they would wait for each other
        raise ConfigError(
            f"WORLD_SIZE={processes()} is set without {', '.join(missing)}. To run several "
            f"processes, {_TORCHRUN}; for one, unset WORLD_SIZE"
        )
    keep_freed_memory()
    # Forget the previous run of a sweep, whose device or precision may differ.
    AcceleratorState._reset_state(reset_partial_state=processes() == 1)
    # Accelerate does not choose the CPU by itself for several processes.
    no_gpu = processes() > 1 and not (torch.cuda.is_available() or torch.xpu.is_available())
    accelerator = Accelerator(
        cpu=trainer.device == "cpu" or no_gpu,
        mixed_precision=choose_precision(trainer),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if accelerator.num_processes != processes():
        raise ConfigError(
            f"{processes()} processes were started, of which {accelerator.num_processes} joined; "
            f"{_TORCHRUN}"
        )
    return accelerator


def share_run_folder(settings: Settings, accelerator: Accelerator) -> Path:
    """Creates the run's folder in the first process and returns it in all.

    Raises:
        ConfigError: If it cannot be made.
    """
    made = [str(create_run_folder(settings)) if accelerator.is_main_process else ""]
    return Path(broadcast_object_list(made)[0])
