"""Kill -9 at any moment: the resumed run ends with the bits of one that was not killed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from spaudio.errors import SpaudioError
from spaudio.io.lock import claimed
from spaudio.train.checkpoint import find_checkpoint, load_weights
from spaudio.train.log import read_log
from tests.fixtures.toy import PLACES, PROCESSES, last, train, train_and_die

EPOCHS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("kill") / "whole"
    assert go_on(run, "item", 10**9) == 0
    return run


def go_on(run: Path, place: str, count: int) -> int | None:
    process = PROCESSES.Process(target=train_and_die, args=(run, EPOCHS, place, count))
    process.start()
    process.join(120)
    return process.exitcode


def check_same(run: Path, whole: Path) -> None:
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


def test_killed_at_random_steps(tmp_path: Path, whole: Path) -> None:
    rng = np.random.default_rng(0)
    kills = [go_on(tmp_path / "run", "item", int(rng.integers(1, 50))) for _ in range(5)]
    assert kills.count(-9) >= 3
    assert go_on(tmp_path / "run", "item", 10**9) == 0
    check_same(tmp_path / "run", whole)


@pytest.mark.parametrize("place", list(PLACES))
def test_killed_while_it_writes(tmp_path: Path, whole: Path, place: str) -> None:
    """Killed at the first few calls that write, rename or remove."""
    # Only the log is replaced, once at each start.
    counts = (0, 0, 0) if place == "replace" else (0, 1, 2, 5)
    kills = [go_on(tmp_path / "run", place, count) for count in counts]
    assert kills.count(-9) >= 3
    assert go_on(tmp_path / "run", "item", 10**9) == 0
    check_same(tmp_path / "run", whole)
    left = [path.name for path in (tmp_path / "run" / "checkpoints").glob(".*")]
    assert left == []


def test_killed_from_outside(tmp_path: Path, whole: Path) -> None:
    rng = np.random.default_rng(2)
    run, killed = tmp_path / "run", 0
    for _ in range(4):
        process = PROCESSES.Process(target=train_and_die, args=(run, EPOCHS, "item", 10**9))
        process.start()
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
    assert go_on(run, "item", 10**9) == 0
    check_same(run, whole)


def test_two_processes_never_train_one_run(tmp_path: Path) -> None:
    with claimed(tmp_path):
        process = PROCESSES.Process(target=refused, args=(tmp_path,))
        process.start()
        process.join(60)
    assert process.exitcode == 0
    train(tmp_path, 1)


def refused(run: Path) -> None:
    with pytest.raises(SpaudioError, match="trained by another process"):
        train(run, 1)
    assert not (run / "checkpoints").exists()
