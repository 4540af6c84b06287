"""What is trained and what is measured: the interface, and classification."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.tokens.dataset import Batch
from spaudio.train.shards import gather


class Measured(Protocol):
    """What an objective measures on the validation split.

    ``metrics`` go to the log, each as ``valid_<name>``; ``rank`` orders epochs, the highest is the
    best one (compared from its first entry on); ``text`` is for the progress bar.
    """

    @property
    def metrics(self) -> dict[str, float]: ...  # noqa: D102

    @property
    def rank(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def text(self) -> str: ...  # noqa: D102


class Objective(Protocol):
    """What the loop trains; see :class:`Classification` for an example."""

    def loss(self, model: nn.Module, batch: Any, rng: np.random.Generator) -> Tensor:
        """Mean loss of a training batch, a scalar; ``rng`` is seeded by run and step."""
        ...

    def measure(
        self, model: nn.Module, batches: Iterable[Any], accelerator: Accelerator
    ) -> Measured:
        """Runs a model over this process's share of a split; returns what all shares come to."""
        ...


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split, in the order of the split's clips.

    Args:
        probabilities: (clips, classes), on the CPU.
        labels: (clips,), class indices.
        loss: Mean cross-entropy over clips, in nats.
    """

    probabilities: Tensor
    labels: Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of clips whose most probable class is the true one."""
        return (self.probabilities.argmax(dim=1) == self.labels).double().mean().item()

    @property
    def metrics(self) -> dict[str, float]:
        """Loss and accuracy."""
        return {"loss": self.loss, "accuracy": self.accuracy}

    @property
    def rank(self) -> tuple[float, ...]:
        """The higher accuracy is better; of equal ones the lower loss."""
        return (self.accuracy, -self.loss)

    @property
    def text(self) -> str:
        """Accuracy, short."""
        return f"valid {self.accuracy:.3f}"


@dataclass(frozen=True)
class Classification:
    """One class a clip: cross-entropy, selected by accuracy.

    Args:
        label_smoothing: Share of the target that is spread over all classes.
        mixup: Parameter of mixup's Beta distribution; 0 for none.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0

    def loss(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        """See :func:`classification_loss`."""
        return classification_loss(
            model, batch, label_smoothing=self.label_smoothing, mixup=self.mixup, rng=rng
        )

    def measure(
        self, model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator
    ) -> Predictions:
        """See :func:`predict`."""
        return predict(model, batches, accelerator)


def classification_loss(
    model: nn.Module,
    batch: Batch,
    *,
    label_smoothing: float,
    mixup: float,
    rng: np.random.Generator,
) -> Tensor:
    """Cross-entropy of a training batch, with label smoothing and mixup.

    Mixup (arXiv 1710.09412) mixes each clip with another one of the batch, or of the part of it
    that a process computes at a time. Of two clips of unlike
    length the shorter one counts as zeros where it has ended: the mean of normalised frames, or
    silence of waveforms, whose samples are mixed.

    Args:
        model: Called as ``model(tokens, padding_mask)``.
        batch: A padded batch.
        label_smoothing: Share of the target that is spread over all classes.
        mixup: Parameter of the Beta distribution of the shares; 0 for none.
        rng: Draws partners and shares.

    Returns:
        The mean loss, a scalar.
    """
    if not mixup:
        logits = model(batch.tokens, batch.padding_mask)
        return F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    mixed = mix(batch, mixup, rng)
    logits = model(mixed.tokens, mixed.padding_mask)
    first = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    second = F.cross_entropy(logits, batch.labels[mixed.other], label_smoothing=label_smoothing)
    return mixed.share * first + (1 - mixed.share) * second


class Mixed(NamedTuple):
    """A batch mixed with itself: its tokens, its padding, the first share, the partners."""

    tokens: Tensor
    padding_mask: Tensor
    share: float
    other: Tensor


def mix(batch: Batch, mixup: float, rng: np.random.Generator) -> Mixed:
    """Mixes each clip of a batch with another one; see :func:`classification_loss`."""
    share = float(rng.beta(mixup, mixup))
    other = torch.from_numpy(rng.permutation(len(batch.labels))).to(batch.labels.device)
    return Mixed(
        share * batch.tokens + (1 - share) * batch.tokens[other],
        batch.padding_mask & batch.padding_mask[other],
        share,
        other,
    )


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator) -> Predictions:
    """Runs a model over a split, once.

    Args:
        model: Called as ``model(tokens, padding_mask)``; left in evaluation mode.
        batches: This process's share of the whole split (`spaudio.train.shards.share_out`).
        accelerator: Gathers over processes.

    Returns:
        Predictions in the order of the split's clips. The segments of a clip vote: its
        probabilities are the mean of theirs.
    """
    model.eval()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        logits = model(batch.tokens, batch.padding_mask).float()
        found.append((batch.clips.cpu(), batch.labels.cpu(), logits.cpu()))
    found = gather(found, accelerator)
    clips, labels, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
    votes = clips.bincount()
    voted = torch.zeros(len(votes), logits.shape[1], dtype=torch.float64)
    voted.index_add_(0, clips, logits.double().softmax(dim=1))
    voted /= votes.unsqueeze(1)
    labels = torch.empty_like(votes).index_copy_(0, clips, labels)
    loss = F.nll_loss(voted.clamp_min(torch.finfo(torch.float64).tiny).log(), labels)
    return Predictions(voted.float(), labels, loss.item())
