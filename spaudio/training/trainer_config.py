"""Settings of training: epochs, batches, precision, optimizer, schedule."""

from dataclasses import dataclass

from spaudio.errors import ConfigError
from spaudio.training.balance import BALANCES


@dataclass
class TrainerConfig:
    """How to train.

    Args:
        epochs: Passes over the training split.
        batch_size: Clips per optimizer step, over all processes.
        max_tokens: Maximum tokens per batch of clips, with padding and before augmentation. Long
            clips whose batch would exceed it are batched separately, fewer at a time.
        accumulate: Parts into which each process splits its share of a batch. They are computed one
            after another, which needs less memory. The step is the same without dropout, stochastic
            depth, mixing of clips and a stem with batch norm, which draw or average in each part.
        device: ``"auto"`` (a GPU if there is one) or ``"cpu"``.
        precision: ``"no"`` (float32), ``"bf16"``, or ``"auto"``: bf16 if the hardware supports it.
            Epochs are validated in float32 if weights are averaged (``ema``), else in this
            precision; the final scores are in float32.
        clip_norm: Maximum norm of the gradient.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        workers: Processes that load batches; 0 loads in the training process.
        ema: Decay per step of the averaged weights, which are then measured and kept; 0 keeps the
            weights themselves.
        min_steps: Minimum optimizer steps; a small dataset gets more epochs than ``epochs``.
        max_epochs: Maximum epochs to which ``min_steps`` extends a run. It never ends a run before
            the smaller of ``min_steps`` and 1,500 steps.
        balance: How to compensate for class imbalance; see :mod:`spaudio.training.balance`.
            ``"sampler"`` draws each class equally often, ``"loss"`` weighs the loss of each class
            equally, ``"none"`` does nothing. ``"auto"`` balances if the largest class has more than
            4 times as many items as the smallest: by ``"loss"`` if clips are long, else by
            ``"sampler"``.

    Raises:
        ConfigError: If a value is out of range.
    """

    epochs: int = 20
    batch_size: int = 32
    max_tokens: int = 65_536
    accumulate: int = 1
    device: str = "auto"
    precision: str = "no"
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    workers: int = 1
    ema: float = 0.0
    min_steps: int = 0
    max_epochs: int = 250
    balance: str = "auto"

    def __post_init__(self) -> None:
        for name in (
            "epochs", "batch_size", "max_tokens", "accumulate", "clip_norm", "max_epochs",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer.{name} must be positive; got {getattr(self, name)}")
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"trainer.accumulate must be at most trainer.batch_size={self.batch_size}; got "
                f"{self.accumulate}"
            )
        if self.workers > 256:
            raise ConfigError(f"trainer.workers must be at most 256; got {self.workers}")
        if self.device not in ("auto", "cpu"):
            raise ConfigError(
                f"trainer.device must be auto or cpu; got {self.device!r}; to choose among GPUs, "
                "set CUDA_VISIBLE_DEVICES"
            )
        if self.precision not in ("auto", "no", "bf16"):
            raise ConfigError(f"trainer.precision must be auto, no or bf16; got {self.precision!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"trainer.label_smoothing must lie in [0, 1); got {self.label_smoothing}"
            )
        for name in ("workers", "min_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"trainer.{name} must not be negative; got {getattr(self, name)}")
        if self.balance not in BALANCES:
            raise ConfigError(f"trainer.balance must be one of {BALANCES}; got {self.balance!r}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"trainer.ema must lie in [0, 1); got {self.ema}")

    def is_long(self, tokens: int) -> bool:
        """Whether a full batch of clips of this many tokens would exceed ``max_tokens``."""
        return tokens * self.batch_size > self.max_tokens


@dataclass
class OptimConfig:
    """AdamW, with a linear warm-up and a cosine decay of the learning rate.

    Args:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay (arXiv 1711.05101) of matrices. Vectors (biases, norms,
            gains) and the parameters of filters, including those of a learned front-end, are not
            decayed.
        beta1: Decay of the running mean of gradients.
        beta2: Decay of the running mean of their squares.
        warmup: Share of all steps, in [0, 1), over which the rate rises linearly from zero.
        final: Rate that the cosine ends with, as a share of the peak. As in PyTorch's
            ``CosineAnnealingLR``, it belongs to the step after the last one, whose rate is above it
            by about ``2.5 / n**2`` of the peak, where n is the number of steps after the warm-up.

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
