"""Chooses the clips of each batch: clips of similar length, in an order that changes by epoch."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Items = npt.NDArray[np.int64]


class BucketSampler(Sampler[list[tuple[int, int]]]):
    """Batches of clips of similar length, to reduce padding.

    Shuffled clips are split into pools of many batches. Each pool is sorted by length and split
    into batches, and all batches are shuffled. The order depends on seed and epoch only. Batches
    differ by at most one clip in size: a last, smaller batch would hold the longest clips, and each
    of them would weigh more than the others, as every batch is one step.

    A clip so long that a full batch of its length would exceed ``max_tokens`` is not shuffled with
    the others. Such clips form smaller batches by their length, the same ones in each epoch, so
    that every epoch has the same number of batches.

    Args:
        lengths: Tokens of each clip.
        batch_size: Maximum clips per batch.
        shuffle: False, for evaluation, gives all clips in order of length, in full batches.
        seed: The run's seed.
        max_tokens: Maximum tokens per batch, with padding. A clip above it is a batch of its own.
        classes: Class of each clip. If given, each class is drawn equally often, and an epoch has
            as many draws as clips. Clips of small classes occur several times, each time as a
            different variation; clips of large classes are not in every epoch. No clip may then be
            long in the sense above.
    """

    POOL = 8  # batches per pool; more give less padding, but batches that are less random
    # Variation numbers reserved for each epoch: more than the times a clip can occur in one.
    TURNS = 1_000_003

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        max_tokens: float = math.inf,
        classes: Sequence[int] | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        is_long = self.lengths * batch_size > max_tokens
        self._short = np.flatnonzero(~is_long)
        self._long = list(self._long_batches(np.flatnonzero(is_long), max_tokens))
        numbers = None if classes is None else np.asarray(classes)
        self._members = (
            [] if numbers is None else [np.flatnonzero(numbers == c) for c in np.unique(numbers)]
        )

    def _long_batches(self, items: Items, max_tokens: float) -> Iterator[Items]:
        """Yields batches of long clips, from the shortest to the longest."""
        items = items[np.argsort(self.lengths[items], kind="stable")]
        batch: list[int] = []
        for item in items:
            if batch and (len(batch) + 1) * self.lengths[item] > max_tokens:
                yield np.array(batch)
                batch = []
            batch.append(item)
        if batch:
            yield np.array(batch)

    def __len__(self) -> int:
        return math.ceil(len(self._short) / self.batch_size) + len(self._long)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0, which determines order and augmentation."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        short = self._short
        if not self.shuffle:
            order = short[np.argsort(self.lengths[short], kind="stable")]
            size = self.batch_size
            batches = [order[i : i + size] for i in range(0, len(order), size)] + self._long
        else:
            rng = np.random.default_rng([self.seed, self.epoch])
            order = self._balanced(rng) if self._members else short
            order = order[rng.permutation(len(order))]
            count = len(self) - len(self._long)
            ends = np.arange(count + 1) * len(order) // max(1, count)
            pool = np.searchsorted(ends[self.POOL : -1 : self.POOL], np.arange(len(order)), "right")
            order = order[np.lexsort((self.lengths[order], pool))]
            batches = np.split(order, ends[1:-1])[:count] + self._long
            batches = [batches[i] for i in rng.permutation(len(batches))]
        turns = self.TURNS if self._members else 1
        seen: Counter[int] = Counter()
        for batch in batches:
            items = []
            for item in batch.tolist():
                items.append((self.epoch * turns + seen[item], item))
                seen[item] += turns > 1
            yield items

    def _balanced(self, rng: np.random.Generator) -> Items:
        """Draws as many clips as there are; class counts differ by at most one."""
        each, more = divmod(len(self.lengths), len(self._members))
        drawn = []
        for items, extra in zip(
            self._members, rng.permutation(len(self._members)) < more, strict=True
        ):
            wanted = each + int(extra)
            rounds = [rng.permutation(items) for _ in range(math.ceil(wanted / len(items)))]
            drawn.append(np.concatenate(rounds)[:wanted])
        return np.concatenate(drawn)
