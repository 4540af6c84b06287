"""Accuracy with aligned embeddings, as for the clips of one new speaker, place or device."""

from typing import Any

import numpy as np
import torch

from spaudio.tokens.dataset import TokenDataset
from spaudio.training.alignment import Alignment, embed_clips
from spaudio.training.objective import average_segments


@torch.no_grad()
def measure_aligned(model: Any, alignment: Alignment, dataset: TokenDataset) -> dict[str, Any]:
    """Measures the accuracy on a split if each of its groups is aligned by itself.

    Args:
        model: A classifier, in evaluation mode.
        alignment: Statistics of the embeddings of its training clips.
        dataset: The split, with one label per clip.

    Returns:
        ``accuracy``, and the number of ``groups``.
    """
    clips = dataset.clips
    embeddings, owners = embed_clips(model, dataset, range(len(clips)))
    groups = np.array([clips[clip].group for clip in owners.tolist()])
    names = np.unique(groups)
    for name in names:
        members = torch.from_numpy(groups == name)
        embeddings[members] = alignment(embeddings[members], owners[members])
    logits = model.classify(embeddings.to(next(model.parameters()).device)).cpu()
    found = average_segments(logits.softmax(dim=1), owners)
    labels = torch.tensor([dataset.label(clip) for clip in clips])
    right = (found.argmax(dim=1) == labels).double().mean().item()
    return {"accuracy": right, "groups": len(names)}
