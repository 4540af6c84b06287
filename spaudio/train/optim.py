"""AdamW with decay groups, and a warm-up + cosine schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from spaudio.errors import ConfigError


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule.

    Args:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay (arXiv 1711.05101) of matrices; vectors (biases, norms,
            gains) and everything inside a filter go without.
        beta1: Decay of the running mean of gradients.
        beta2: Decay of the running mean of their squares.
        warmup: Share of all steps in which the rate rises linearly from zero.
        final: What the cosine ends at, as a share of the peak.

    Raises:
        ConfigError: If a value is out of range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    warmup: float = 0.1
    final: float = 0.01

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optim.lr must be positive; got {self.lr}")
        for name in ("warmup", "final", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name} must lie in [0, 1); got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise ConfigError(f"optim.weight_decay must not be negative; got {self.weight_decay}")


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Builds AdamW with two groups: with and without weight decay."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        in_filter = ".filters." in f".{name}"
        (plain if parameter.dim() < 2 or in_filter else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))


def schedule(step: int, total: int, config: OptimConfig) -> float:
    """Returns the learning rate of a step.

    Args:
        step: From 0.
        total: Steps of the whole run.
        config: Peak, warm-up and final share.

    Returns:
        A linear rise over the first ``warmup * total`` steps, then a cosine to ``final * lr``.
    """
    warmup = max(1, round(config.warmup * total))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (config.final + (1 - config.final) * cosine)
