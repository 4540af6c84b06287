"""Finds the training clips most similar to a clip, by the embeddings that the head classifies."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spaudio.model.pretrained.adapted import AnyClassifier
from spaudio.report.choose_clips import some_of_each_class
from spaudio.tokens.dataset import TokenDataset
from spaudio.training.alignment import embed_clips

MOST = 5000  # training clips to search, at most the same number per class


@torch.inference_mode()
def unit_embeddings(model: AnyClassifier, dataset: TokenDataset, clips: Sequence[int]) -> Tensor:
    """Computes embeddings of clips, of unit length and averaged over segments.

    Returns:
        (clips, dim), on the CPU.
    """
    place = {clip: row for row, clip in enumerate(clips)}
    vectors, owners = embed_clips(model, dataset, clips)
    rows = torch.tensor([place[clip] for clip in owners.tolist()])
    found = torch.zeros(len(clips), vectors.shape[1]).index_add_(0, rows, vectors)
    return F.normalize(found, dim=1)


def find_nearest(
    model: AnyClassifier,
    train: TokenDataset,
    test: TokenDataset,
    wanted: Mapping[int, Sequence[str]],
    multi_label: bool,
) -> dict[tuple[int, str], str]:
    """Finds the most similar training clip for given classes, by cosine similarity.

    Args:
        model: Trained, in evaluation mode.
        train: The training split.
        test: The test split.
        wanted: Class names by index of the test clip.
        multi_label: A clip may have several classes.

    Returns:
        Path of the training clip, by index of the test clip and class.
    """
    if not wanted:
        return {}
    chosen = some_of_each_class(train.clips, multi_label, MOST)
    used = sorted({name for names in wanted.values() for name in names} & set(chosen))
    numbers = sorted({number for name in used for number in chosen[name]})
    row = {number: i for i, number in enumerate(numbers)}
    known = unit_embeddings(model, train, numbers)
    asked = unit_embeddings(model, test, list(wanted))
    found = {}
    for name in used:
        of_class = known[[row[number] for number in chosen[name]]]
        rows = [i for i, names in enumerate(wanted.values()) if name in names]
        clips = list(wanted)
        for i, best in zip(rows, (asked[rows] @ of_class.T).argmax(dim=1).tolist(), strict=True):
            found[clips[i], name] = train.clips[chosen[name][best]].path
    return found
