"""Clips as a padded batch of tokens with labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spaudio.audio.manifest import class_names
from spaudio.tokens.config import Frames


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
