"""Kill -9 at any moment: the resumed run ends with the bits of one that was not killed."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from spaudio.errors import SpaudioError
from spaudio.io.lock import claimed
from spaudio.training.checkpoint import find_checkpoint, load_weights
from spaudio.training.log import read_log
from tests.fixtures.toy import NEVER, PLACES, in_processes, last, start, train, train_and_die

EPOCHS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("kill") / "whole"
    assert go_on(run, "item", NEVER) == 0
    return run


def go_on(run: Path, place: str, count: int) -> int | None:
    return in_processes(train_and_die, 1, run, EPOCHS, place, count)[0]


def ends_the_same(run: Path, whole: Path) -> None:
    assert go_on(run, "item", NEVER) == 0
    torch.testing.assert_close(last(run), last(whole), atol=0, rtol=0)
    best, expected = (find_checkpoint(folder / "checkpoints", "best") for folder in (run, whole))
    assert best.name == expected.name
    torch.testing.assert_close(load_weights(best), load_weights(expected), atol=0, rtol=0)
    logs = [
        [{k: v for k, v in r.items() if "seconds" not in k} for r in read_log(folder)]
        for folder in (run, whole)
    ]
    assert logs[0] == logs[1]
    assert [record["epoch"] for record in logs[0]] == list(range(1, EPOCHS + 1))
    assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.parametrize("place", ["item", *PLACES])
def test_killed_at_a_step_or_while_it_writes(tmp_path: Path, whole: Path, place: str) -> None:
    """Killed at random steps, or at the first few calls that write, rename or remove."""
    random = np.random.default_rng(0).integers(1, 50, 5).tolist()
    # Only the log is replaced, once at each start.
    counts = {"item": random, "replace": [0, 0, 0]}.get(place, [0, 1, 2, 5])
    kills = [go_on(tmp_path / "run", place, count) for count in counts]
    assert kills.count(-9) >= 3
    ends_the_same(tmp_path / "run", whole)


def test_killed_from_outside(tmp_path: Path, whole: Path) -> None:
    rng = np.random.default_rng(2)
    run, killed = tmp_path / "run", 0
    for _ in range(4):
        process = start(train_and_die, run, EPOCHS, "item", NEVER)
        known = len(read_log(run))
        deadline = time.monotonic() + 60
        while process.is_alive() and len(read_log(run)) <= known < EPOCHS - 1:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.02)))
        process.kill()
        process.join()
        killed += process.exitcode == -9
    assert killed >= 2
    ends_the_same(run, whole)


def test_two_processes_never_train_one_run(tmp_path: Path) -> None:
    with claimed(tmp_path):
        assert in_processes(refused, 1, tmp_path) == [0]
    train(tmp_path, 1)


def refused(run: Path) -> None:
    with pytest.raises(SpaudioError, match="another process is training in"):
        train(run, 1)
    assert not (run / "checkpoints").exists()
