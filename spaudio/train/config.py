"""Settings of training: epochs, batches, precision, optimizer, schedule."""

from __future__ import annotations

from dataclasses import dataclass

from spaudio.errors import ConfigError


@dataclass
class TrainerConfig:
    """How to train.

    Args:
        epochs: Passes over the training split.
        batch_size: Clips an optimiser step, over all processes.
        accumulate: Parts that each process computes its share of a batch in, one after another: the
            same step in less memory.
        precision: ``"no"`` (float32) or ``"bf16"``.
        clip_norm: Largest norm of the gradient.
        label_smoothing: Share of the target that is spread over all classes.
        workers: Processes that load batches; 0 loads in the training process.

    Raises:
        ConfigError: If a value is out of range.
    """

    epochs: int = 20
    batch_size: int = 32
    accumulate: int = 1
    precision: str = "no"
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer.{name} must be positive; got {getattr(self, name)}")
        if self.precision not in ("no", "bf16"):
            raise ConfigError(f"trainer.precision must be 'no' or 'bf16'; got {self.precision!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"trainer.label_smoothing must lie in [0, 1); got {self.label_smoothing}"
            )
        if self.workers < 0:
            raise ConfigError(f"trainer.workers must not be negative; got {self.workers}")


@dataclass
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
