"""Next-character prediction as an objective: cross-entropy in nats, selected by it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.text.windows import TextBatch
from spaudio.train.shards import gather


@dataclass(frozen=True)
class Likelihood:
    """How well a model predicts a text.

    Args:
        loss: Mean of -log p(next character), in nats.
        characters: Number of characters predicted.
    """

    loss: float
    characters: int

    @property
    def bits(self) -> float:
        """Bits a character."""
        return self.loss / math.log(2)

    @property
    def metrics(self) -> dict[str, float]:
        """The loss, in nats and in bits."""
        return {"loss": self.loss, "bits": self.bits}

    @property
    def rank(self) -> tuple[float, ...]:
        """The lower loss is better."""
        return (-self.loss,)

    @property
    def text(self) -> str:
        """The loss, short."""
        return f"valid {self.loss:.3f} nats"


class NextCharacter:
    """Each character of a window is predicted from those before it."""

    def loss(self, model: nn.Module, batch: TextBatch, rng: np.random.Generator) -> Tensor:
        """Mean loss in nats; ``rng`` is not needed."""
        return _nats(model, batch).mean()

    @torch.inference_mode()
    def measure(
        self, model: nn.Module, batches: Iterable[TextBatch], accelerator: Accelerator
    ) -> Likelihood:
        """Runs a model over its process's share; only the predictions that count are counted."""
        model.eval()
        nats, count = 0.0, 0
        for batch in batches:
            lost = _nats(model, batch)
            place = torch.arange(lost.shape[1], device=lost.device)
            counted = place >= batch.skip.unsqueeze(1)
            sums = (lost.double() * counted).sum(dim=1)
            nats += float(sums.sum())
            count += int(counted.sum())
        shares = gather([(nats, count)], accelerator)
        nats, count = sum(share[0] for share in shares), sum(share[1] for share in shares)
        return Likelihood(nats / max(count, 1), count)


def _nats(model: nn.Module, batch: TextBatch) -> Tensor:
    """-log p of each next character, (batch, context)."""
    logits = model(batch.symbols[:, :-1])
    return F.cross_entropy(logits.float().transpose(1, 2), batch.symbols[:, 1:], reduction="none")
