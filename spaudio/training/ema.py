"""An exponential moving average of a model's weights."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages the weights of a model over its training steps (Polyak & Juditsky 1992).

    The average forgets slowly at the end and fast at the beginning: its decay is
    ``min(decay, (1 + step) / (10 + step))``, as in TensorFlow's ``ExponentialMovingAverage``.
    Floating-point buffers, such as the statistics of batch norm, are averaged too.

    Args:
        model: The model; the average starts from its weights.
        decay: Decay per step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the weights of a model.

        Args:
            model: The model after a training step.
            step: Index of that step, from 0.
        """
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for kept, new in zip(
            self.model.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if kept.is_floating_point():
                averaged.append(kept)
                current.append(new)
            else:
                kept.copy_(new)
        torch._foreach_lerp_(averaged, current, weight)
