"""Batches mixed with themselves: mixup and cutmix."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spaudio.tokens.dataset import Batch


class Mixed(NamedTuple):
    """A mixed batch.

    Args:
        tokens: (batch, tokens, features).
        padding_mask: Boolean (batch, tokens), True where both clips are padding.
        share: (batch,), the share of each clip in what it has become.
        other: (batch,), the clip that it was mixed with.
    """

    tokens: Tensor
    padding_mask: Tensor
    share: Tensor
    other: Tensor


@dataclass(frozen=True)
class Mixing:
    """Mixes the clips of training batches in pairs.

    Mixup (arXiv 1710.09412) adds two clips by shares that are drawn from a Beta distribution for
    each pair. Where one clip has ended, it counts as zeros: the mean of normalised frames, or
    silence of waveforms. Cutmix (arXiv 1905.04899) replaces a span of tokens by the same span of
    the other clip. Pairs are drawn within the part of a batch that a process computes at a time.

    Args:
        mixup: Share of the batches that mixup is applied to.
        cutmix: Share of the batches that cutmix is applied to.
        beta: Both parameters of the Beta distribution.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    beta: float = 0.3

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Mixed | None:
        """Mixes a padded batch, or returns None where it is left as it is."""
        if not self.mixup and not self.cutmix:
            return None
        drawn = rng.random()
        if drawn >= self.mixup + self.cutmix:
            return None
        clips = len(batch.labels)
        device = batch.tokens.device
        other = torch.from_numpy(rng.permutation(clips)).to(device)
        if drawn < self.mixup:
            share = torch.from_numpy(rng.beta(self.beta, self.beta, clips)).float().to(device)
            weight = share[:, None, None]
            tokens = weight * batch.tokens + (1 - weight) * batch.tokens[other]
            return Mixed(tokens, batch.padding_mask & batch.padding_mask[other], share, other)
        lengths = (~batch.padding_mask).sum(dim=1)
        shorter = torch.minimum(lengths, lengths[other])
        draws = torch.from_numpy(rng.random((2, clips))).float().to(device)
        span = (draws[0] * shorter).long()
        start = (draws[1] * (shorter - span + 1)).long()
        place = torch.arange(batch.tokens.shape[1], device=device)
        inside = (place >= start[:, None]) & (place < (start + span)[:, None])
        tokens = torch.where(inside[..., None], batch.tokens[other], batch.tokens)
        return Mixed(tokens, batch.padding_mask, 1 - span / lengths, other)
