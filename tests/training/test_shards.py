"""Several processes: each clip counts once, and the loss curve is that of one process."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from spaudio.training.checkpoint import find_checkpoint, load_model
from spaudio.training.feed import make_feed
from spaudio.training.log import read_log
from spaudio.training.objective import predict
from spaudio.training.shards import SplitBatches, WholeBatches, share_out
from spaudio.training.trainer_config import TrainerConfig
from tests.fixtures.toy import TRAINING, dataset, in_processes, last, make_model, train

# Without mixup and dropout, which are drawn per process.
EXACT: dict[str, Any] = {"mixup": 0.0, "dropout": 0.0}
BATCHES = [list(range(8)), [8], list(range(9, 14)), [14, 15, 16]]


@pytest.mark.parametrize(("processes", "parts"), [(1, 3), (2, 1), (3, 2), (7, 3)])
def test_each_clip_of_a_batch_goes_to_one_process(processes: int, parts: int) -> None:
    shares = [SplitBatches(BATCHES, rank, processes, parts) for rank in range(processes)]
    for batch in BATCHES:
        own = [share.own(batch, part) for share in shares for part in range(parts)]
        assert sorted(item for items in own for item in items) == batch
        assert max(map(len, own)) - min(map(len, own)) <= 1
    for share in shares:  # all run as often, or they would wait for each other
        assert len(list(share)) == len(share) == len(BATCHES) * parts
        assert all(share)
    # To measure, a batch goes to one process as a whole.
    whole = [WholeBatches(BATCHES, rank, processes) for rank in range(processes)]
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
    """The last batch is one clip, so that of its eight parts seven are empty."""
    for name, parts in (("whole", 1), ("parts", 8)):
        train(tmp_path / name, 2, accumulate=parts, weights=(0.5, 1.5), **EXACT)
    torch.testing.assert_close(
        curve(tmp_path / "parts"), curve(tmp_path / "whole"), rtol=1e-4, atol=1e-5
    )
    assert (curve(tmp_path / "whole")[:, 0] != curve(alone)[:, 0]).all()


def test_bfloat16_learns_alike(tmp_path: Path, alone: Path) -> None:
    train(tmp_path, 2, precision="bf16", accumulate=2, **EXACT)
    losses = curve(tmp_path)[:, :2]
    torch.testing.assert_close(losses, curve(alone)[:, :2], rtol=0.03, atol=0.01)
    assert (losses != curve(alone)[:, :2]).any()


def probabilities(run: Path, clips: int) -> torch.Tensor:
    accelerator = Accelerator(cpu=True)
    model = make_model()
    load_model(model, find_checkpoint(run / "checkpoints", "best"))
    feed = make_feed(dataset(range(clips)), TrainerConfig(workers=0), shuffle=False, seed=0)
    return predict(model, share_out(feed.loader, accelerator), accelerator).probabilities


def both(folder: Path) -> None:
    """What each of two processes does."""
    accelerator = Accelerator(cpu=True)
    seen: set[int] = set()
    train(folder / "two", 2, before=lambda item: seen.add(item[1] + 1000 * item[0]), **EXACT)
    torch.save(sorted(seen), folder / f"seen-{accelerator.process_index}.pt")
    train(folder / "parts", 2, accumulate=2, **EXACT)
    for clips in (1, 17):  # of one, the second process has none
        found = probabilities(folder / "alone", clips)
        torch.save(found, folder / f"clips-{clips}-{accelerator.process_index}.pt")
    # With dropout and mixup, stopped and resumed.
    train(folder / "whole", 2)

    def stop(item: tuple[int, int]) -> None:
        if item[0] == 1:
            raise KeyboardInterrupt

    try:
        train(folder / "stopped", 2, before=stop)
    except KeyboardInterrupt:
        torch.manual_seed(99)
    accelerator.wait_for_everyone()
    train(folder / "stopped", 2, resume=True)


def test_two_processes_train_as_one(tmp_path: Path, alone: Path) -> None:
    (tmp_path / "alone").symlink_to(alone)
    assert in_processes(both, 2, tmp_path) == [0, 0]
    for run in ("two", "parts"):
        torch.testing.assert_close(curve(tmp_path / run), curve(alone), rtol=1e-4, atol=1e-5)
    first, second = (set(torch.load(tmp_path / f"seen-{i}.pt")) for i in range(2))
    assert len(first | second) == 2 * len(TRAINING)
    # The last batch of an epoch holds one clip; the second process runs a copy that does not count.
    assert len(first & second) == 2
    torch.testing.assert_close(last(tmp_path / "stopped"), last(tmp_path / "whole"), atol=0, rtol=0)
    for clips in (1, 17):
        expected = probabilities(alone, clips)
        for rank in range(2):
            found = torch.load(tmp_path / f"clips-{clips}-{rank}.pt")
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
