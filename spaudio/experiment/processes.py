"""Runs in several processes, started by ``torchrun`` or by a launcher."""

import os
import signal
import threading
import time
from collections.abc import Mapping
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
_TORCHRUN = "start them by torchrun, on each machine with the same --nnodes and --rdzv-endpoint"
PARENT = "SPAUDIO_PARENT"  # environment variable of a run that a launcher has started
# Seconds until SIGINT is sent again to a run that goes on. Python raises KeyboardInterrupt wherever
# it is then, and that may be code that discards exceptions, such as a finalizer.
REPEAT = 10.0


def processes() -> int:
    """Returns the number of processes that ``torchrun`` has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Returns whether this is the process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def with_parent(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment for a run that must end with this process."""
    return {**environment, PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Stops this process, like Ctrl-C, once the process that started it has ended.

    Acts only in the environment of :func:`with_parent`.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    # Processes that a shell starts in the background, and their children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        time.sleep(1)
        while os.getppid() == int(parent):
            time.sleep(1)
        while True:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(REPEAT)

    threading.Thread(target=watch, daemon=True).start()


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
