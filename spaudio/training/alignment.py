"""Aligns clips of one speaker, place or device with the training clips, without labels.

Such clips share a voice, a room or a microphone, which shifts and scales their embeddings. If they
cover the classes in about the proportions of the training clips, the shift is the difference of the
means. Clips of a few classes only must not be aligned: the information about their class would be
removed.

Sources: features normalised per speaker, Busso et al., "Iterative Feature Normalization Scheme for
Automatic Emotion Detection from Speech", IEEE Transactions on Affective Computing 4 (4), 2013;
statistics of the target domain in a trained network, Li et al., arXiv 1603.04779.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from spaudio.audio.manifest import Clip
from spaudio.tokens.dataset import TokenDataset
from spaudio.training.loader import plain_batches

#: The statistics of a group are averaged with those of this many imagined training clips.
PRIOR_CLIPS = 16
LEAST_CLIPS = 8  # per group, on average, for the report
LEAST_STD = 1e-4


@dataclass(frozen=True)
class Alignment:
    """Mean and spread of the embeddings of the training clips.

    Args:
        mean: (width,).
        std: (width,), positive.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, embeddings: Tensor, clips: Tensor) -> Self:
        """Fits to embeddings of training clips; arguments as for :meth:`__call__`."""
        mean, variance, _ = _moments(embeddings, clips)
        return cls(mean, variance.sqrt().clamp_min(LEAST_STD))

    def __call__(self, embeddings: Tensor, clips: Tensor) -> Tensor:
        """Gives the embeddings of one group the mean and spread of the training clips.

        Each clip has the same weight, regardless of its number of parts. Small groups are shifted
        less than large ones.

        Args:
            embeddings: (parts, width): of clips, or of windows of clips.
            clips: (parts,), index of the clip of each part.

        Returns:
            (parts, width).
        """
        mean, variance, count = _moments(embeddings, clips)
        share = count / (count + PRIOR_CLIPS)
        mean = torch.lerp(self.mean, mean, share)
        std = torch.lerp(self.std.square(), variance, share).sqrt()
        return (embeddings - mean) * (self.std / std) + self.mean


def _moments(embeddings: Tensor, clips: Tensor) -> tuple[Tensor, Tensor, int]:
    """Returns mean and variance (width,) over clips of equal weight, and their number."""
    parts = clips.bincount()
    count = int((parts > 0).sum())
    weights = (1 / (count * parts[clips])).unsqueeze(1)
    mean = (weights * embeddings).sum(dim=0)
    return mean, (weights * (embeddings - mean).square()).sum(dim=0), count


@torch.no_grad()
def embed_clips(model: Any, dataset: TokenDataset, clips: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Computes the embeddings of clips, from which the last linear layer of a model makes logits.

    Args:
        model: Has ``embed(tokens, padding_mask)``; in evaluation mode.
        dataset: Any split.
        clips: Indices of the clips; at least one.

    Returns:
        Embeddings (items, width), and the clip of each item (items,), on the CPU.
    """
    device = next(model.parameters()).device
    found, owners = [], []
    for batch in plain_batches(dataset, clips):
        embedded = model.embed(batch.tokens.to(device), batch.padding_mask.to(device))
        found.append(embedded.float().cpu())
        owners.append(batch.clips.cpu())
    return torch.cat(found), torch.cat(owners)


def groups_are_mixed(clips: Sequence[Clip]) -> bool:
    """Whether groups are like speakers, each with clips of many classes, and can be aligned.

    A recording of one sound is the opposite: all of its clips have one class.

    Args:
        clips: The training clips.
    """
    labels: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        labels[clip.group].append(clip.label)
    classes = len({clip.label for clip in clips})
    covered = sum(len(set(found)) for found in labels.values()) / len(labels)
    return covered >= classes / 2 and len(clips) >= LEAST_CLIPS * len(labels)
