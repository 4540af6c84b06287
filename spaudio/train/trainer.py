"""How to train: epochs, batches, precision."""

from __future__ import annotations

from dataclasses import dataclass

from spaudio.errors import ConfigError


@dataclass(frozen=True)
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
    workers: int = 0

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
