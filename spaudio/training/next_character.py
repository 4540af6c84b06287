"""Next-character prediction as an objective: cross-entropy in nats, also for selection."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.text.windows import TextBatch
from spaudio.training.shards import gather


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
        """Bits per character."""
        return self.loss / math.log(2)

    @property
    def metrics(self) -> dict[str, float]:
        """The loss, in nats and in bits."""
        return {"loss": self.loss, "bits": self.bits}

    @property
    def rank(self) -> tuple[float, ...]:
        """Ranks a lower loss higher."""
        return (-self.loss,)

    @property
    def text(self) -> str:
        """The loss, for the progress bar."""
        return f"valid {self.loss:.3f} nats"


class NextCharacter:
    """Predicts each character of a window from the characters before it."""

    def loss(self, model: nn.Module, batch: TextBatch, rng: np.random.Generator) -> Tensor:
        """Returns the mean loss in nats; ``rng`` is not used."""
        return _nats(model, batch).mean()

    @torch.inference_mode()
    def measure(
        self, model: nn.Module, batches: Iterable[TextBatch], accelerator: Accelerator
    ) -> Likelihood:
        """Runs a model over this process's share of a split; returns the results of all shares.

        The first ``skip`` predictions of a window are not counted.
        """
        model.eval()
        nats, count = 0.0, 0
        for batch in batches:
            lost = _nats(model, batch)
            place = torch.arange(lost.shape[1], device=lost.device)
            counted = place >= batch.skip.unsqueeze(1)
            sums = (lost.cpu().double() * counted.cpu()).sum(dim=1)
            nats += float(sums.sum())
            count += int(counted.sum())
        shares = gather([(nats, count)], accelerator)
        nats, count = sum(share[0] for share in shares), sum(share[1] for share in shares)
        return Likelihood(nats / max(count, 1), count)


def _nats(model: nn.Module, batch: TextBatch) -> Tensor:
    """Returns -log p of each next character, (batch, context)."""
    logits = model(batch.symbols[:, :-1])
    return F.cross_entropy(logits.float().transpose(1, 2), batch.symbols[:, 1:], reduction="none")
