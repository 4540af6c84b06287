"""Datasets and batches of tokens: segments, padding, and buckets of similar length."""

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from spaudio.audio.manifest import Clip, class_names
from spaudio.errors import ConfigError
from spaudio.tokens.augment import Augment
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.config import Frames
from spaudio.tokens.front_end import FrontEnd, stack_frames

Items = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """A padded batch of clips; a tuple, so that Accelerate can place it on a device.

    Args:
        tokens: (batch, tokens, features), float; padding is zero. For the waveform front-end the
            features are the samples of a token.
        padding_mask: Boolean (batch, tokens), True where a token is padding.
        labels: (batch,), class indices; for a multi-label dataset (batch, classes), float, 1 for
            each class of the clip, else 0.
        clips: (batch,), index of each clip in its dataset.
    """

    tokens: Tensor
    padding_mask: Tensor
    labels: Tensor
    clips: Tensor

    @property
    def num_tokens(self) -> Tensor:
        """Number of tokens that are not padding, on the device of the batch."""
        return (~self.padding_mask).sum()


@dataclass(frozen=True)
class Example:
    """A clip or segment before padding.

    Args:
        tokens: (tokens, features).
        label: Class index; for a multi-label dataset (classes,), see :func:`multi_hot`.
        clip: Index of the clip in the dataset.
    """

    tokens: Frames
    label: int | npt.NDArray[np.float32]
    clip: int


def multi_hot(label: str, class_index: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """Returns (classes,): 1 for each class that a clip's joined label names, else 0."""
    target = np.zeros(len(class_index), dtype=np.float32)
    target[[class_index[name] for name in class_names(label, multi_label=True)]] = 1
    return target


@dataclass
class SegmentConfig:
    """Cuts long clips into segments that are classified separately.

    Args:
        seconds: Length of a segment; None keeps clips whole.
        hop: Step between segments, in seconds; None uses their length.

    Raises:
        ConfigError: If a value is not positive.
    """

    seconds: float | None = None
    hop: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ConfigError(f"segments.{name} must be positive or null; got {value}")
        if self.hop is not None and self.seconds is None:
            raise ConfigError(f"segments.hop={self.hop} needs segments.seconds, their length")

    def in_frames(self, frame_seconds: float) -> tuple[int, int]:
        """Returns the length of a segment and the step between segments, in frames."""
        assert self.seconds is not None
        length = max(1, round(self.seconds / frame_seconds))
        return length, max(1, round((self.hop or self.seconds) / frame_seconds))

    def spans(self, frames: int, frame_seconds: float) -> list[tuple[int, int]]:
        """Returns start and stop, in frames, of each segment of a clip.

        A remainder of at least half a hop, or half a segment if that is shorter, becomes a segment
        of its own; a shorter one is dropped.
        """
        if self.seconds is None:
            return [(0, frames)]
        length, hop = self.in_frames(frame_seconds)
        # The last of several segments is short by at most half of the lesser of the two.
        count = max(1, 1 + (2 * (frames - length) + min(hop, length)) // (2 * hop))
        return [(i * hop, min(i * hop + length, frames)) for i in range(count)]


class TokenDataset(Dataset[Example]):
    """The clips of one split, whole or cut into segments, as tokens.

    Items are indexed by ``(variation, item)``. The variation is the epoch, unless an item occurs
    several times in one. The augmentation is seeded by run seed, variation and item, so that it
    does not depend on order, worker or process, and a resumed run repeats it.

    Args:
        clips: The split's clips.
        classes: Class names, in the order of the model's outputs.
        cache: Frames of the clips.
        front_end: Makes tokens from frames; its normaliser is fitted on the training split.
        augment: Augmentation of the training split; None for other splits.
        seed: The run's seed.
        segments: How clips are cut; by default they are kept whole.
        multi_label: Whether a clip may have several classes.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        classes: Sequence[str],
        cache: FrameCache,
        front_end: FrontEnd,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        segments: SegmentConfig | None = None,
        multi_label: bool = False,
    ) -> None:
        self.clips = list(clips)
        cut = segments or SegmentConfig()
        self._items = [
            (index, start, stop)
            for index, clip in enumerate(self.clips)
            for start, stop in cut.spans(cache.length(clip.path), front_end.config.frame_seconds)
        ]
        self._is_cut = cut.seconds is not None
        self._class_index = {name: i for i, name in enumerate(classes)}
        self._multi_label = multi_label
        self._cache = cache
        self._front_end = front_end
        self.augment = augment
        self._seed = seed
        crop = augment.config.crop if augment and "crop" not in augment.ignored else 0.0
        self._most = round(crop / front_end.config.frame_seconds)  # frames that training sees

    @property
    def how_to_shorten(self) -> str:
        """How clips get fewer tokens, for error messages."""
        return self._front_end.how_to_shorten

    def __len__(self) -> int:
        return len(self._items)

    def plain(self) -> "TokenDataset":
        """Returns the same items without excerpts and augmentation."""
        other = copy.copy(self)
        other.augment, other._most = None, 0
        return other

    @property
    def is_whole(self) -> bool:
        """Whether each clip is one item."""
        return len(self._items) == len(self.clips)

    def lengths(self) -> list[int]:
        """Returns the number of tokens of each item, before augmentation."""
        stack = self._front_end.config.stack
        most = self._most or math.inf
        return [math.ceil(min(stop - start, most) / stack) for _, start, stop in self._items]

    def longest(self) -> tuple[int, int]:
        """Returns the item that can have the most tokens, and their number.

        The number allows for augmentation, and for prediction, whose windows may be a frame longer
        than the segments that were cut from a clip.
        """
        slower, more = 1.0, int(self._is_cut)
        if self.augment and self.augment.config.tempo:
            slower += self.augment.config.tempo
            more += self._front_end.config.learned  # a resampled waveform may end within a hop
        stack, most = self._front_end.config.stack, self._most or math.inf
        tokens = [
            math.ceil(min(round((stop - start) * slower) + more, most) / stack)
            for _, start, stop in self._items
        ]
        item = max(range(len(tokens)), key=tokens.__getitem__)
        return item, tokens[item]

    def classes(self) -> list[int]:
        """Returns the class index of each item; not for a multi-label dataset."""
        return [self._class_index[self.clips[index].label] for index, _, _ in self._items]

    def clip(self, item: int) -> Clip:
        """Returns the clip of an item."""
        return self.clips[self._items[item][0]]

    def frames(self, item: int) -> Frames:
        """Returns the cached frames (frames, width) of an item."""
        index, start, stop = self._items[item]
        return self._cache.frames(self.clips[index].path, start, stop)

    def __getitem__(self, item: tuple[int, int]) -> Example:
        variation, index = item
        clip = self._items[index][0]
        frames = self.frames(index)
        if self.augment is None:
            tokens = self._front_end.tokens(frames)
        else:
            rng = np.random.default_rng([self._seed, variation, index])
            frames = self.augment.vary(frames, rng, self._most)
            frames = self.augment.mask(self._front_end.normalise(frames), rng)
            tokens = stack_frames(frames, self._front_end.config.stack)
        return Example(tokens, self.label(self.clips[clip]), clip)

    def label(self, clip: Clip) -> int | npt.NDArray[np.float32]:
        """Returns the label of a clip, as in :class:`Example`."""
        if not self._multi_label:
            return self._class_index[clip.label]
        return multi_hot(clip.label, self._class_index)


def collate(examples: Sequence[Example]) -> Batch:
    """Pads examples to the length of the longest and joins them into a batch."""
    longest = max(len(example.tokens) for example in examples)
    features = examples[0].tokens.shape[1]
    tokens = np.zeros((len(examples), longest, features), dtype=np.float32)
    padding = np.ones((len(examples), longest), dtype=np.bool_)
    for i, example in enumerate(examples):
        tokens[i, : len(example.tokens)] = example.tokens
        padding[i, : len(example.tokens)] = False
    return Batch(
        tokens=torch.from_numpy(tokens),
        padding_mask=torch.from_numpy(padding),
        labels=torch.from_numpy(np.stack([np.asarray(e.label) for e in examples])),
        clips=torch.tensor([example.clip for example in examples]),
    )


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
