"""Finds the training clips most similar to a clip, by the embeddings that the head classifies."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spaudio.audio.manifest import Clip, class_names
from spaudio.audio.split import seeded_order
from spaudio.model.classifier import Classifier
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.tokens.dataset import Batch, Example, TokenDataset, collate

MOST = 5000  # training clips to search, at most the same number per class
_BATCH, _TOKENS = 32, 1 << 13  # most clips and tokens per batch


def batches(dataset: TokenDataset, clips: Iterable[int]) -> Iterator[Batch]:
    """Yields batches of clips without augmentation, with similar lengths together.

    Args:
        dataset: Any split.
        clips: Indices of the clips; each segment of a clip is one item of a batch.
    """
    plain = dataset.plain()
    wanted = {plain.clips[number].path for number in clips}
    lengths = plain.lengths()
    items = [i for i in range(len(plain)) if plain.clip(i).path in wanted]
    items.sort(key=lambda item: lengths[item])
    waiting: list[Example] = []
    for item in items:
        example = plain[0, item]
        longest = max(len(one.tokens) for one in (example, *waiting))
        if len(waiting) == _BATCH or (len(waiting) + 1) * longest > _TOKENS:
            if waiting:
                yield collate(waiting)
            waiting = []
        waiting.append(example)
    if waiting:
        yield collate(waiting)


@torch.inference_mode()
def embed_clips(
    model: Classifier | AdaptedClassifier, dataset: TokenDataset, clips: Sequence[int]
) -> Tensor:
    """Computes embeddings of clips, of unit length and averaged over segments.

    Returns:
        (clips, dim), on the CPU.
    """
    device = next(model.parameters()).device
    place = {clip: row for row, clip in enumerate(clips)}
    found: Tensor | None = None
    for batch in batches(dataset, clips):
        vectors = model.embed(batch.tokens.to(device), batch.padding_mask.to(device)).float().cpu()
        if found is None:
            found = torch.zeros(len(clips), vectors.shape[1])
        found.index_add_(0, torch.tensor([place[c] for c in batch.clips.tolist()]), vectors)
    assert found is not None
    return F.normalize(found, dim=1)


def some_of_each_class(clips: Sequence[Clip], multi_label: bool, most: int) -> dict[str, list[int]]:
    """Chooses clips, equally many per class if possible; returns their indices by class.

    Args:
        clips: Clips of a split.
        multi_label: A clip may have several classes; it counts for each.
        most: Maximum number of clips in total.
    """
    numbers = {clip.path: number for number, clip in enumerate(clips)}
    by_class: defaultdict[str, list[int]] = defaultdict(list)
    for path in seeded_order(numbers, 0):
        for name in class_names(clips[numbers[path]].label, multi_label):
            by_class[name].append(numbers[path])
    share = max(1, most // max(1, len(by_class)))
    return {name: numbers[:share] for name, numbers in by_class.items()}


def find_nearest(
    model: Classifier | AdaptedClassifier,
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
    known = embed_clips(model, train, numbers)
    asked = embed_clips(model, test, list(wanted))
    found = {}
    for name in used:
        of_class = known[[row[number] for number in chosen[name]]]
        rows = [i for i, names in enumerate(wanted.values()) if name in names]
        clips = list(wanted)
        for i, best in zip(rows, (asked[rows] @ of_class.T).argmax(dim=1).tolist(), strict=True):
            found[clips[i], name] = train.clips[chosen[name][best]].path
    return found
