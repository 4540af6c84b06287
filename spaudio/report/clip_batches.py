"""Chooses clips for a report, and reads them in batches."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from spaudio.audio.manifest import Clip, class_names
from spaudio.audio.split import seeded_order
from spaudio.tokens.dataset import Batch, Example, TokenDataset, collate

_BATCH, _TOKENS = 32, 1 << 13  # most clips and tokens per batch


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
