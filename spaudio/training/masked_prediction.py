"""Masked prediction: an objective that predicts the frames of masked spans, without labels."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from spaudio.tokens.batch import Batch
from spaudio.training.shards import gather


@dataclass(frozen=True)
class Reconstruction:
    """How well masked tokens are predicted.

    Args:
        loss: Mean squared error of normalised frames; predicting their mean gives 1.
    """

    loss: float

    @property
    def metrics(self) -> dict[str, float]:
        """The loss."""
        return {"loss": self.loss}

    @property
    def rank(self) -> tuple[float, ...]:
        """Ranks a lower loss higher."""
        return (-self.loss,)

    @property
    def text(self) -> str:
        """The loss, for the progress bar."""
        return f"held out {self.loss:.3f}"


@dataclass(frozen=True)
class MaskedPrediction:
    """Predicts the normalised frames of masked tokens, with a squared error.

    As in MAE-AST (arXiv 2203.16691), with spans instead of patches. Small keyword models gain from
    such pretraining on their own training clips (arXiv 2210.01703).

    Args:
        mask_ratio: Share of a clip's spans that is masked.
        mask_length: Tokens per span.
    """

    mask_ratio: float
    mask_length: int

    def loss(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Returns the mean over clips of the squared error at masked tokens."""
        return self._errors(model, batch, rng).mean()

    @torch.inference_mode()
    def measure(
        self, model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator
    ) -> Reconstruction:
        """Runs a model over this process's share of a split; returns the mean over all clips.

        The masks of a batch depend only on its clips.
        """
        model.eval()
        total, clips = 0.0, 0
        for batch in batches:
            rng = np.random.default_rng(batch.clips.tolist())
            total += float(self._errors(model, batch, rng).cpu().double().sum())
            clips += len(batch.clips)
        shares = gather([(total, clips)], accelerator)
        return Reconstruction(sum(s[0] for s in shares) / max(1, sum(s[1] for s in shares)))

    def _errors(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Returns the mean squared error of each clip over its masked tokens."""
        masked = mask_spans(batch.padding_mask, self.mask_ratio, self.mask_length, rng)
        predicted = model(batch.tokens, batch.padding_mask, masked).float()
        errors = (predicted - batch.tokens).square().mean(dim=2)
        found: Tensor = (errors * masked).sum(dim=1) / masked.sum(dim=1)
        return found


def mask_spans(padding_mask: Tensor, share: float, span: int, rng: np.random.Generator) -> Tensor:
    """Samples the masked tokens of each clip.

    A clip is cut into spans; the first has a random length. A share of the spans, rounded, is
    masked: at least one and, if there are several, not all.

    Args:
        padding_mask: Boolean (batch, tokens), True where a token is padding.
        share: Share of the spans, in (0, 1).
        span: Tokens per span.
        rng: Random generator.

    Returns:
        Boolean (batch, tokens), False at padding.
    """
    masked = np.zeros(padding_mask.shape, dtype=np.bool_)
    for row, length in zip(masked, (~padding_mask).sum(dim=1).tolist(), strict=True):
        number = (np.arange(length) + rng.integers(span)) // span
        spans = int(number[-1]) + 1
        count = min(max(1, round(share * spans)), max(1, spans - 1))
        row[:length] = np.isin(number, rng.choice(spans, count, replace=False))
    return torch.from_numpy(masked).to(padding_mask.device)
