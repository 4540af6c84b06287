"""AdamW with and without weight decay, and a schedule with warm-up and cosine decay."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from spaudio.training.trainer_config import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Builds AdamW with parameter groups with and without weight decay.

    A model may have ``lr_scales``, which maps the first part of a parameter's name to a factor of
    its learning rate. Groups keep it as ``lr_scale``, which is 1 by default.
    """
    scales: Mapping[str, float] = getattr(model, "lr_scales", {})
    members: dict[tuple[float, float], list[nn.Parameter]] = {
        (config.weight_decay, 1.0): [], (0.0, 1.0): []
    }  # fmt: skip
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_filter = ".filters." in f".{name}" or ".token_filter." in name
        decay = 0.0 if parameter.dim() < 2 or in_filter else config.weight_decay
        scale = scales.get(name.partition(".")[0], 1.0)
        members.setdefault((decay, scale), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in members.items()
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)


def schedule(step: int, total: int, config: OptimConfig) -> float:
    """Returns the learning rate of a step.

    Args:
        step: Step, from 0.
        total: Steps of the whole run.
        config: Peak, warm-up and final share.

    Returns:
        A linear rise over the first ``warmup * total`` steps, then a cosine that reaches
        ``final * lr`` at step ``total``, one after the last.
    """
    warmup = max(1, round(config.warmup * total))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (config.final + (1 - config.final) * cosine)
