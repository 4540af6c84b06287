"""The clips of a split as tokens, whole or cut into segments."""

import copy
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from spaudio.audio.manifest import Clip
from spaudio.tokens.augment import Augment
from spaudio.tokens.batch import Example, multi_hot
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.config import Frames
from spaudio.tokens.front_end import FrontEnd, stack_frames
from spaudio.tokens.segments import SegmentConfig


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

    def starts_at(self, clip: int) -> float:
        """Returns where in a clip its first token begins, in seconds, except in training.

        Of a clip that is cut into segments, that is the first token of the first segment.
        """
        item = next(i for i, (index, _, _) in enumerate(self._items) if index == clip)
        frames = self._front_end.amplify(self.frames(item))
        start: int = self._front_end.heard(frames).start
        return start * self._front_end.config.frame_seconds

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
