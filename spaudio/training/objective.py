"""Objectives, which define loss and validation metrics: the interface, and classification."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.tokens.batch import Batch
from spaudio.training.balance import Balance
from spaudio.training.mixing import Mixing
from spaudio.training.shards import gather


class Measured(Protocol):
    """Result of an objective on the validation split.

    ``metrics`` go to the log as ``valid_<name>``. ``rank`` orders epochs; the best one has the
    highest tuple. ``text`` is for the progress bar.
    """

    @property
    def metrics(self) -> dict[str, float]: ...  # noqa: D102

    @property
    def rank(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def text(self) -> str: ...  # noqa: D102


class Objective(Protocol):
    """Loss and measurement of a kind of task; see :class:`Classification` for an example."""

    def loss(self, model: nn.Module, batch: Any, rng: np.random.Generator) -> Tensor:
        """Returns the mean loss of a batch, a scalar; ``rng`` is seeded by run and step."""
        ...

    def measure(
        self, model: nn.Module, batches: Iterable[Any], accelerator: Accelerator
    ) -> Measured:
        """Runs a model over this process's share of a split; returns the results of all shares."""
        ...


@dataclass(frozen=True)
class Predictions:
    """Predictions for a split, in the order of its clips.

    Args:
        probabilities: (clips, classes), on the CPU.
        labels: (clips,), class indices.
        loss: Mean cross-entropy over clips, in nats.
        balanced: Whether epochs are ranked by balanced accuracy.
    """

    probabilities: Tensor
    labels: Tensor
    loss: float
    balanced: bool = False

    @property
    def accuracy(self) -> float:
        """Share of clips whose most probable class is correct."""
        return (self.probabilities.argmax(dim=1) == self.labels).double().mean().item()

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the accuracies of the classes that occur."""
        hits = (self.probabilities.argmax(dim=1) == self.labels).double()
        counts = self.labels.bincount()
        return (self.labels.bincount(hits) / counts)[counts > 0].mean().item()

    @property
    def metrics(self) -> dict[str, float]:
        """Loss, accuracy and balanced accuracy."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
        }

    @property
    def rank(self) -> tuple[float, ...]:
        """Ranks by accuracy or balanced accuracy, then by lower loss."""
        return (self.balanced_accuracy if self.balanced else self.accuracy, -self.loss)

    @property
    def text(self) -> str:
        """Accuracy, for the progress bar."""
        return f"valid {self.accuracy:.3f}"


@dataclass(frozen=True)
class Classification:
    """One class per clip: cross-entropy, selected by accuracy or balanced accuracy.

    Args:
        label_smoothing: Share of the target that is spread over all classes.
        mixing: How training batches are mixed.
        balance: How classes of different sizes are balanced. If they are, epochs are selected by
            balanced accuracy.
    """

    label_smoothing: float = 0.0
    mixing: Mixing = field(default_factory=Mixing)
    balance: Balance = field(default_factory=Balance)

    def loss(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy over the clips of a training batch.

        A clip's cross-entropy is multiplied by the weight of its class, in a mixed clip for each of
        its two labels. The sum is divided by the number of clips, not by the sum of weights, so
        that the parts of a batch add up to the batch.
        """
        batch = self.mixing.restyle(batch, rng)
        mixed = self.mixing(batch, rng)
        if mixed is None:
            logits = model(batch.tokens, batch.padding_mask)
            if self.balance.loss_weights is None:
                return F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
            return self._each(logits, batch.labels).mean()
        logits = model(mixed.tokens, mixed.padding_mask)
        own, others = (
            self._each(logits, labels) for labels in (batch.labels, batch.labels[mixed.other])
        )
        return (mixed.share * own + (1 - mixed.share) * others).mean()

    def _each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the weighted cross-entropy of each clip."""
        return weighted_losses(logits, labels, self.balance.loss_weights, self.label_smoothing)

    @torch.inference_mode()
    def measure(
        self, model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator
    ) -> Predictions:
        """Runs a model over this process's share of a split; returns the results of all shares.

        The probabilities of a clip with several segments are the mean over its segments.
        """
        clips, labels, logits = measure_logits(model, batches, accelerator)
        voted = average_segments(logits.softmax(dim=1), clips)
        labels = labels.new_empty(len(voted)).index_copy_(0, clips, labels)
        loss = F.nll_loss(voted.clamp_min(torch.finfo(torch.float64).tiny).log(), labels)
        balanced = self.balance.method != "none"
        return Predictions(voted.float(), labels, loss.item(), balanced)


def weighted_losses(
    logits: Tensor, labels: Tensor, weights: Tensor | None, label_smoothing: float = 0.0
) -> Tensor:
    """Returns the cross-entropy of each clip, times the weight of its class (classes,), if any."""
    lost = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return lost if weights is None else lost * weights.to(labels.device)[labels]


def average_segments(values: Tensor, clips: Tensor) -> Tensor:
    """Averages over the segments of each clip.

    Args:
        values: (segments, classes).
        clips: (segments,), index of the clip of each segment; every clip has at least one.

    Returns:
        (clips, classes), in double precision.
    """
    counts = clips.bincount().unsqueeze(1)
    total = values.new_zeros(len(counts), values.shape[1], dtype=torch.float64)
    return total.index_add_(0, clips, values.double()) / counts


def measure_logits(
    model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs a model over this process's share of a split.

    Returns:
        Clips, labels and float64 logits of the items of all shares, on the CPU.
    """
    model.eval()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        logits = model(batch.tokens, batch.padding_mask).float()
        found.append((batch.clips.cpu(), batch.labels.cpu(), logits.cpu()))
    clips, labels, logits = (
        torch.cat(parts) for parts in zip(*gather(found, accelerator), strict=True)
    )
    return clips, labels, logits.double()
