"""Chooses clips of each class for a report."""

from collections import defaultdict
from collections.abc import Sequence

from spaudio.audio.manifest import Clip, class_names
from spaudio.audio.split import seeded_order


def some_of_each_class(clips: Sequence[Clip], multi_label: bool, most: int) -> dict[str, list[int]]:
    """Chooses clips, equally many per class if possible; returns their indices by class.

    Args:
        clips: Clips of a split.
        multi_label: A clip may have several classes; it counts for each.
        most: Maximum number of clips in total. If there are more classes, some get none.
    """
    numbers = {clip.path: number for number, clip in enumerate(clips)}
    by_class: defaultdict[str, list[int]] = defaultdict(list)
    for path in seeded_order(numbers, 0):
        for name in class_names(clips[numbers[path]].label, multi_label):
            by_class[name].append(numbers[path])
    share = max(1, most // max(1, len(by_class)))
    chosen = list(by_class.items())[:most]
    return {name: found[:share] for name, found in chosen}
