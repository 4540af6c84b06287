"""Classification: the loss that is trained, and the predictions that are scored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.tokens.dataset import Batch


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


def classification_loss(
    model: nn.Module,
    batch: Batch,
    *,
    label_smoothing: float,
    mixup: float,
    rng: np.random.Generator,
) -> Tensor:
    """Cross-entropy of a training batch, with label smoothing and mixup.

    Mixup (arXiv 1710.09412) mixes each clip with another one of the batch. Of two clips of unlike
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
    share = float(rng.beta(mixup, mixup))
    other = torch.from_numpy(rng.permutation(len(batch.labels))).to(batch.labels.device)
    logits = model(
        share * batch.tokens + (1 - share) * batch.tokens[other],
        batch.padding_mask & batch.padding_mask[other],
    )
    first = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    second = F.cross_entropy(logits, batch.labels[other], label_smoothing=label_smoothing)
    return share * first + (1 - share) * second


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator) -> Predictions:
    """Runs a model over a split, once.

    Args:
        model: Called as ``model(tokens, padding_mask)``; left in evaluation mode.
        batches: A prepared loader over the whole split, in any order.
        accelerator: Gathers over processes.

    Returns:
        Predictions in the order of the split's clips.
    """
    model.eval()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        logits = model(batch.tokens, batch.padding_mask).float()
        gathered = accelerator.gather_for_metrics((batch.clips, batch.labels, logits))
        found.append(tuple(part.cpu() for part in gathered))
    clips, labels, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = clips.argsort()
    logits, labels = logits[order], labels[order]
    return Predictions(logits.softmax(dim=1), labels, F.cross_entropy(logits, labels).item())
