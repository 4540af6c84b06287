"""Multi-label classification: binary cross-entropy, selected by mean average precision."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.tokens.batch import Batch
from spaudio.training.mixing import Mixing
from spaudio.training.objective import average_segments, measure_logits


@dataclass(frozen=True)
class MultiLabelPredictions:
    """Predictions for a split, in the order of its clips.

    Args:
        probabilities: (clips, classes), each in [0, 1], on the CPU.
        labels: (clips, classes), 1 where the clip has the class, else 0.
        loss: Mean binary cross-entropy over clips and classes, in nats.
    """

    probabilities: Tensor
    labels: Tensor
    loss: float

    @cached_property
    def mean_average_precision(self) -> float:
        """Mean of the average precision over the classes that occur in the split."""
        return float(np.nanmean(average_precisions(self.probabilities, self.labels)))

    @property
    def metrics(self) -> dict[str, float]:
        """Loss and mean average precision."""
        return {"loss": self.loss, "mAP": self.mean_average_precision}

    @property
    def rank(self) -> tuple[float, ...]:
        """Ranks by mean average precision, then by lower loss."""
        return (self.mean_average_precision, -self.loss)

    @property
    def text(self) -> str:
        """Mean average precision, for the progress bar."""
        return f"valid mAP {self.mean_average_precision:.3f}"


@dataclass(frozen=True)
class MultiLabel:
    """Several classes per clip: binary cross-entropy, selected by mean average precision.

    Args:
        label_smoothing: Share by which each target moves towards one half.
        mixing: How training batches are mixed.
    """

    label_smoothing: float = 0.0
    mixing: Mixing = field(default_factory=Mixing)

    def loss(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Returns the mean binary cross-entropy over clips and classes; mixup mixes targets too."""
        targets = batch.labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        batch = self.mixing.restyle(batch, rng)
        mixed = self.mixing(batch, rng)
        if mixed is None:
            logits = model(batch.tokens, batch.padding_mask)
        else:
            logits = model(mixed.tokens, mixed.padding_mask)
            share = mixed.share.unsqueeze(1)
            targets = share * targets + (1 - share) * targets[mixed.other]
        return F.binary_cross_entropy_with_logits(logits, targets)

    @torch.inference_mode()
    def measure(
        self, model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator
    ) -> MultiLabelPredictions:
        """Runs a model over this process's share of a split; returns the results of all shares.

        The probabilities of a clip with several segments are the mean over its segments.
        """
        clips, labels, logits = measure_logits(model, batches, accelerator)
        # In float32, probabilities near 1 would lose the logits, which temperature scaling needs.
        chances = average_segments(logits.sigmoid(), clips)
        labels = labels.new_empty(chances.shape).index_copy_(0, clips, labels)
        return MultiLabelPredictions(
            chances, labels, F.binary_cross_entropy(chances, labels.to(chances)).item()
        )


def average_precisions(scores: Tensor, labels: Tensor) -> list[float]:
    """Returns the average precision of each class.

    Args:
        scores: (clips, classes).
        labels: (clips, classes), 1 where the clip has the class, else 0.

    Returns:
        One value per class, NaN for a class without clips.
    """
    from sklearn.metrics import average_precision_score  # loads slowly; few runs need it

    return [
        float(average_precision_score(truth, score)) if truth.any() else math.nan
        for truth, score in zip(labels.T.numpy(), scores.T.numpy(), strict=True)
    ]
