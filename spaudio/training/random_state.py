"""Random states of all processes, saved in checkpoints and restored from them."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from spaudio.training.shards import gather


def seed_process(seed: int, accelerator: Accelerator) -> None:
    """Seeds every process but the first, so that each has its own dropout."""
    if rank := accelerator.process_index:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))


def random_states(accelerator: Accelerator) -> list[dict[str, Any]]:
    """Returns the states of all processes; every process must call it."""
    state = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return gather([state], accelerator)


def restore_random_state(states: Any, seed: int, accelerator: Accelerator) -> None:
    """Restores this process's state; a process that the saved run did not have is seeded."""
    if accelerator.process_index >= len(states):
        seed_process(seed, accelerator)
        return
    state = states[accelerator.process_index]
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], accelerator.device)
