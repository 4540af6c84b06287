"""Distributes batches to processes: together, the processes take the steps that one would take.

Accelerate's own sharding fills the last batch with clips of the first and requires full batches,
which a bucket sampler does not give.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, send_to_device
from torch import nn
from torch.utils.data import DataLoader, Sampler

T = TypeVar("T")


class SplitBatches(Sampler[list[Any]]):
    """One process's parts of each batch, one after another.

    Args:
        batches: Batches of all processes.
        process: Rank of this process, from 0.
        processes: Number of processes.
        parts: Parts per process; of a batch of few items, those at the end are left out if they are
            empty in all processes.
    """

    def __init__(self, batches: Any, process: int, processes: int, parts: int) -> None:
        self.batches, self.process, self.processes, self.parts = batches, process, processes, parts

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.batches:
            for part in range(self.filled(batch)):
                # All processes must run equally many parts. One without items runs the first item,
                # which the loop weights with zero. It is never the first process, whose statistics
                # of batch norm are those that count.
                yield self.own(batch, part) or batch[:1]

    def filled(self, batch: list[Any]) -> int:
        """Returns the number of parts of a batch that have items in any process."""
        return min(self.parts, -(-len(batch) // self.processes))

    def own(self, batch: list[Any], part: int) -> list[Any]:
        """Returns the items of a batch that belong to one part of this process."""
        return batch[self.process + part * self.processes :: self.processes * self.parts]


class OnDevice:
    """A loader that moves its batches to a device."""

    def __init__(self, loader: DataLoader[Any], device: Any) -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield send_to_device(batch, self.device)


def shard_batches(loader: DataLoader[Any], accelerator: Accelerator) -> OnDevice:
    """Returns this process's share of a loader, for measuring a split.

    Each batch goes to exactly one process, so that it counts once. :func:`gather` joins the results
    of all processes.
    """
    batches: Any = loader.batch_sampler
    mine = list(batches)[accelerator.process_index :: accelerator.num_processes]
    return OnDevice(_with_batches(loader, mine), accelerator.device)


def split_batches(
    loader: DataLoader[Any], accelerator: Accelerator, parts: int
) -> tuple[OnDevice, SplitBatches]:
    """Returns this process's parts of each batch of a loader, for training."""
    mine = SplitBatches(
        loader.batch_sampler, accelerator.process_index, accelerator.num_processes, parts
    )
    return OnDevice(_with_batches(loader, mine), accelerator.device), mine


def gather(found: list[T], accelerator: Accelerator) -> list[T]:
    """Returns the joined lists of all processes, on each process; lengths may differ."""
    joined: list[T] = gather_object(found) if accelerator.num_processes > 1 else found
    return joined


def take_buffers_of_first(model: nn.Module) -> None:
    """Gives a model the floating-point buffers that it has in the first process.

    Each process has its own statistics of batch norm after a step. Those of the first are saved in
    checkpoints, so all must measure with them.
    """
    for buffer in model.buffers():
        if buffer.is_floating_point():
            broadcast(buffer)


def _with_batches(loader: DataLoader[Any], batches: Iterable[list[Any]]) -> DataLoader[Any]:
    """Returns a copy of a loader with other batches."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        persistent_workers=loader.persistent_workers,
        generator=loader.generator,
    )
