"""The batches of a split: shuffled by a data loader, or of chosen clips."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from spaudio.errors import ConfigError
from spaudio.tokens.batch import Batch, Example, collate
from spaudio.tokens.bucket_sampler import BucketSampler
from spaudio.tokens.dataset import TokenDataset
from spaudio.training.trainer_config import TrainerConfig

_PLAIN_CLIPS, _PLAIN_TOKENS = 32, 1 << 13  # most per batch of `plain_batches`


def batch_loader(
    dataset: Dataset[Any],
    sampler: Sampler[list[Any]],
    collate_fn: Callable[[list[Any]], Any],
    workers: int,
) -> DataLoader[Any]:
    """Builds the loader of a split's batches.

    Args:
        dataset: The split.
        sampler: Items of each batch; becomes ``batch_sampler``. Items and order depend only on its
            seed and on the epoch that its ``set_epoch`` sets, counted from 0.
        collate_fn: Joins items into a batch, which has ``num_tokens``, its number of tokens without
            padding.
        workers: Processes that load; 0 loads in this one.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_fn,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Otherwise the first pass draws from the global generator, and a resumed run draws again.
        generator=torch.Generator(),
    )


def make_loader(
    dataset: TokenDataset,
    config: TrainerConfig,
    *,
    shuffle: bool,
    seed: int,
    balanced: bool = False,
) -> DataLoader[Any]:
    """Builds a loader of padded batches of clips.

    Args:
        dataset: The split.
        config: Batches and workers.
        shuffle: See :class:`spaudio.tokens.bucket_sampler.BucketSampler`.
        seed: The run's seed.
        balanced: Draw each class equally often.

    Raises:
        ConfigError: If a single clip has more than ``max_tokens`` tokens, or clips are too long to
            be balanced.
    """
    lengths = dataset.lengths()
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] > config.max_tokens:
        segment = "" if dataset.is_whole else "a segment of "
        raise ConfigError(
            f"{segment}{dataset.clip(longest).path} is too long to run in one piece: it has "
            f"{lengths[longest]} tokens, above trainer.max_tokens={config.max_tokens}. Raise it "
            f"if memory allows, or {dataset.how_to_shorten}"
        )
    if balanced and config.is_long(lengths[longest]):
        raise ConfigError(
            f"trainer.balance=sampler needs batches of equal size, but {lengths[longest]} tokens "
            f"of {dataset.clip(longest).path} times trainer.batch_size={config.batch_size} are "
            f"above trainer.max_tokens={config.max_tokens}. Use trainer.balance=loss, "
            f"or {dataset.how_to_shorten}"
        )
    sampler = BucketSampler(
        lengths,
        config.batch_size,
        shuffle=shuffle,
        seed=seed,
        max_tokens=config.max_tokens,
        classes=dataset.classes() if balanced else None,
    )
    return batch_loader(dataset, sampler, collate, config.workers)


def plain_batches(dataset: TokenDataset, clips: Iterable[int]) -> Iterator[Batch]:
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
        if len(waiting) == _PLAIN_CLIPS or (len(waiting) + 1) * longest > _PLAIN_TOKENS:
            if waiting:
                yield collate(waiting)
            waiting = []
        waiting.append(example)
    if waiting:
        yield collate(waiting)
