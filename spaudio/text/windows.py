"""Batches of windows of a text: random ones for training, sliding ones for evaluation."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from spaudio.errors import ConfigError
from spaudio.text.corpus import Symbols


class TextWindow(NamedTuple):
    """A window of a text."""

    start: int  # index of the first character that is read
    skip: int  # predictions at its start that another window has counted


class TextBatch(NamedTuple):
    """A batch of windows; a tuple, so that Accelerate can place it on a device.

    Args:
        symbols: (batch, context + 1), long: each window and the character that follows it.
        skip: (batch,): predictions at the start of each window that do not count.
    """

    symbols: Tensor
    skip: Tensor

    @property
    def num_tokens(self) -> int:
        """Number of characters that are read."""
        return self.symbols.shape[0] * (self.symbols.shape[1] - 1)


class TextWindows(Dataset[tuple[Symbols, int]]):
    """Windows of a text, by index.

    Args:
        symbols: (characters,), the text.
        context: Characters per window.
        windows: From :func:`sliding_windows` or :func:`spread_windows`; None takes every start.

    Raises:
        ConfigError: If the text is not longer than the context.
    """

    def __init__(
        self, symbols: Symbols, context: int, windows: Sequence[TextWindow] | None = None
    ) -> None:
        _check_length(len(symbols), context)
        self.symbols = symbols
        self.context = context
        self.windows = windows

    def __len__(self) -> int:
        return len(self.symbols) - self.context if self.windows is None else len(self.windows)

    def __getitem__(self, index: int) -> tuple[Symbols, int]:
        start, skip = TextWindow(index, 0) if self.windows is None else self.windows[index]
        return self.symbols[start : start + self.context + 1], skip


def collate_windows(items: Sequence[tuple[Symbols, int]]) -> TextBatch:
    """Stacks windows."""
    symbols = torch.from_numpy(np.stack([item[0] for item in items]))
    return TextBatch(symbols.long(), torch.tensor([item[1] for item in items]))


class WindowBatches(Sampler[list[int]]):
    """Batches of windows of a text: drawn at random, or all in order, the same in every epoch.

    Random ones depend only on seed and epoch, so a resumed run continues with the same windows, and
    runs with the same seed read the same text in the same order, whatever their model.

    Args:
        windows: Number of windows in the text.
        batch_size: Windows per batch.
        batches: Random batches per epoch; None takes all windows in order.
        seed: The run's seed.
    """

    def __init__(
        self, windows: int, batch_size: int, batches: int | None = None, *, seed: int = 0
    ) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self.windows // self.batch_size) if self.batches is None else self.batches

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        if self.batches is None:
            for i in range(0, self.windows, self.batch_size):
                yield list(range(i, min(i + self.batch_size, self.windows)))
        else:
            rng = np.random.default_rng([self.seed, self.epoch])
            yield from rng.integers(self.windows, size=(self.batches, self.batch_size)).tolist()


def sliding_windows(characters: int, context: int, stride: int) -> list[TextWindow]:
    """Covers a text so that each character except the first is predicted once.

    Each window starts ``stride`` characters after the previous one, and only predictions that the
    previous one has not made count: each of them, except in the first window, reads at least
    ``context - stride + 1`` characters.

    Args:
        characters: Length of the text, above ``context``.
        context: Characters per window.
        stride: From 1 to ``context``.

    Raises:
        ConfigError: If ``stride`` is out of range, or the text has no full window.
    """
    _check_length(characters, context)
    if not 1 <= stride <= context:
        raise ConfigError(f"eval.stride must lie in 1 to context={context}; got {stride}")
    last = characters - 1 - context
    windows, predicted = [], 0
    for start in [*range(0, last, stride), last]:
        windows.append(TextWindow(start, predicted - start))
        predicted = start + context
    return windows


def spread_windows(characters: int, context: int, count: int) -> list[TextWindow]:
    """Returns at most ``count`` windows, spread evenly over a text; all predictions count.

    Raises:
        ConfigError: If the text has no full window.
    """
    _check_length(characters, context)
    starts = np.linspace(0, characters - 1 - context, num=max(1, count)).astype(int)
    return [TextWindow(int(start), 0) for start in sorted(set(starts.tolist()))]


def _check_length(characters: int, context: int) -> None:
    """Raises ConfigError if a text has no full window, which predicts ``context`` characters."""
    if characters <= context:
        raise ConfigError(
            f"context={context} needs a longer text; a split has {characters} characters: lower "
            "context, or give a longer text"
        )
