"""Several processes: each clip counts once, and the loss curve is that of one process."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from spaudio.tokens.batch import Batch
from spaudio.training.checkpoint import epoch_of, find_checkpoint, load_model
from spaudio.training.loader import make_loader
from spaudio.training.log import read_log
from spaudio.training.mixing import Mixed, Mixing
from spaudio.training.objective import Classification, Predictions
from spaudio.training.shards import SplitBatches, shard_batches
from spaudio.training.trainer_config import TrainerConfig
from tests.fixtures.toy import TRAINING, dataset, in_processes, last, make_model, train

# Without mixup and dropout, which are drawn per process.
EXACT: dict[str, Any] = {"mixup": 0.0, "dropout": 0.0}
# One batch of each epoch is a single clip.
PAIRS: dict[str, Any] = {"batch_size": 2, **EXACT}
BATCHES = [list(range(8)), [8], list(range(9, 14)), [14, 15, 16]]


@pytest.mark.parametrize(("processes", "parts"), [(1, 3), (2, 1), (3, 2), (7, 3)])
def test_each_clip_of_a_batch_goes_to_one_process(processes: int, parts: int) -> None:
    shares = [SplitBatches(BATCHES, rank, processes, parts) for rank in range(processes)]
    for batch in BATCHES:
        own = [share.own(batch, part) for share in shares for part in range(parts)]
        assert sorted(item for items in own for item in items) == batch
        assert max(map(len, own)) - min(map(len, own)) <= 1
    # All run as often, or they would wait for each other, but no part that is empty in all.
    filled = sum(min(parts, -(-len(batch) // processes)) for batch in BATCHES)
    for share in shares:
        assert len(list(share)) == filled
        assert all(share)
    assert sum(map(len, shares[0])) == len({item for items in shares[0] for item in items})
    # To measure, a batch goes to one process as a whole.
    loader: Any = DataLoader(range(17), batch_sampler=BATCHES, collate_fn=list)
    whole = []
    for rank in range(processes):
        place: Any = SimpleNamespace(process_index=rank, num_processes=processes, device="cpu")
        whole.append(shard_batches(loader, place))
    assert sorted(batch for share in whole for batch in share) == sorted(BATCHES)
    assert [len(list(share)) for share in whole] == [len(share) for share in whole]


def curve(run: Path) -> torch.Tensor:
    return torch.tensor(
        [[r["train_loss"], r["valid_loss"], r["valid_accuracy"]] for r in read_log(run)],
        dtype=torch.float64,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("shards") / "alone"
    train(run, 2, **EXACT)
    return run


@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulation_is_the_same_step(tmp_path: Path, alone: Path, accumulate: int) -> None:
    train(tmp_path, 2, accumulate=accumulate, **EXACT)
    torch.testing.assert_close(curve(tmp_path), curve(alone), rtol=1e-4, atol=1e-5)


def test_accumulation_of_a_weighted_loss(tmp_path: Path, alone: Path) -> None:
    """Of the eight parts of a batch, one or two are empty."""
    for name, parts in (("whole", 1), ("parts", 8)):
        train(tmp_path / name, 2, accumulate=parts, weights=(0.5, 1.5), **EXACT)
    torch.testing.assert_close(
        curve(tmp_path / "parts"), curve(tmp_path / "whole"), rtol=1e-4, atol=1e-5
    )
    assert (curve(tmp_path / "whole")[:, 0] != curve(alone)[:, 0]).all()


def test_empty_parts_are_left_out(tmp_path: Path) -> None:
    """They would count in the statistics of batch norm."""
    train(tmp_path, 1, accumulate=8, stem=True, **EXACT)
    assert last(tmp_path)["stem.norms.0.num_batches_tracked"] == len(TRAINING)


def test_bfloat16_learns_alike(tmp_path: Path, alone: Path) -> None:
    train(tmp_path, 2, precision="bf16", accumulate=2, **EXACT)
    losses = curve(tmp_path)[:, :2]
    torch.testing.assert_close(losses, curve(alone)[:, :2], rtol=0.03, atol=0.01)
    assert (losses != curve(alone)[:, :2]).any()


def measured(run: Path, clips: range, *, stem: bool = False) -> Predictions:
    accelerator = Accelerator(cpu=True)
    model = make_model(stem=stem)
    load_model(model, find_checkpoint(run / "checkpoints", "best"))
    loader = make_loader(dataset(clips), TrainerConfig(workers=0), shuffle=False, seed=0)
    return Classification().measure(model, shard_batches(loader, accelerator), accelerator)


def both(folder: Path) -> None:
    """What each of two processes does."""
    accelerator = Accelerator(cpu=True)
    seen: set[int] = set()
    train(folder / "two", 2, before=lambda item: seen.add(item[1] + 1000 * item[0]), **PAIRS)
    torch.save(sorted(seen), folder / f"seen-{accelerator.process_index}.pt")
    train(folder / "parts", 2, accumulate=2, **EXACT)
    for clips in (1, 17):  # of one, the second process has none
        found = measured(folder / "alone", range(clips)).probabilities
        torch.save(found, folder / f"clips-{clips}-{accelerator.process_index}.pt")
    # With dropout, mixup, batch norm and averaged weights, stopped and resumed.
    settings: dict[str, Any] = {"stem": True, "ema": 0.5}
    drawn, mix = [], Mixing.__call__

    def mixing(self: Mixing, batch: Batch, rng: np.random.Generator) -> Mixed | None:
        drawn.append(copy.deepcopy(rng).random())
        return mix(self, batch, rng)

    Mixing.__call__ = mixing  # type: ignore[method-assign]
    train(folder / "whole", 2, **settings)
    torch.save(drawn, folder / f"drawn-{accelerator.process_index}.pt")

    def stop(item: tuple[int, int]) -> None:
        if item[0] == 1:
            raise KeyboardInterrupt

    try:
        train(folder / "stopped", 2, before=stop, **settings)
    except KeyboardInterrupt:
        torch.manual_seed(99)
    accelerator.wait_for_everyone()
    train(folder / "stopped", 2, resume=True, **settings)


def test_two_processes_train_as_one(tmp_path: Path, alone: Path) -> None:
    (tmp_path / "alone").symlink_to(alone)
    assert in_processes(both, 2, tmp_path) == [0, 0]
    train(tmp_path / "pairs", 2, **PAIRS)
    for run, same in (("two", tmp_path / "pairs"), ("parts", alone)):
        torch.testing.assert_close(curve(tmp_path / run), curve(same), rtol=1e-4, atol=1e-5)
    first, second = (set(torch.load(tmp_path / f"seen-{i}.pt")) for i in range(2))
    assert len(first | second) == 2 * len(TRAINING)
    # Of the batch with one clip, the second process runs a copy that does not count.
    assert len(first & second) == 2
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for found, same in ((last(stopped), last(whole)), (curve(stopped), curve(whole))):
        torch.testing.assert_close(found, same, atol=0, rtol=0)
    # All processes validated with the statistics of batch norm that the checkpoint holds.
    best = epoch_of(find_checkpoint(whole / "checkpoints", "best"))
    again = measured(whole, range(33, 50), stem=True).loss
    assert again == pytest.approx(float(curve(whole)[best - 1, 1]), rel=1e-5)
    draws = [set(torch.load(tmp_path / f"drawn-{i}.pt")) for i in range(2)]
    assert len(draws[0] | draws[1]) == 2 * len(draws[0]) > 0
    for clips in (1, 17):
        expected = measured(alone, range(clips)).probabilities
        for rank in range(2):
            found = torch.load(tmp_path / f"clips-{clips}-{rank}.pt")
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
