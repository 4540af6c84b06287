"""The random states of all processes, kept in a checkpoint and put back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from spaudio.train.shards import gather


def seed_process(seed: int, accelerator: Accelerator) -> None:
    """Gives every process but the first its own dropout; the first is seeded by the run."""
    if rank := accelerator.process_index:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))


def random_states(accelerator: Accelerator) -> list[dict[str, Any]]:
    """Returns the states of all processes; to be called on all of them."""
    state = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return gather([state], accelerator)


def restore_random_state(states: Any, seed: int, accelerator: Accelerator) -> None:
    """Puts this process's state back; one that was not there before is seeded anew."""
    if isinstance(states, Tensor):  # as runs kept it before there were several processes
        states = [{"cpu": states}]
    if accelerator.process_index >= len(states):
        seed_process(seed, accelerator)
        return
    state = states[accelerator.process_index]
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], accelerator.device)
