"""Failures of the machine: each gives a one-line error, and the run resumes to the same bits."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from spaudio.errors import SpaudioError
from spaudio.train import loop
from spaudio.train.checkpoint import find_checkpoint, load_state
from tests.fixtures.toy import TRAINING, ToyCache, last, train

EPOCHS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("failures") / "whole"
    train(run, EPOCHS)
    return run


def goes_on(run: Path, whole: Path) -> None:
    train(run, EPOCHS, resume=None)
    torch.testing.assert_close(last(run), last(whole), atol=0, rtol=0)


def one_line(run: Path, cause: str, **settings: object) -> None:
    with pytest.raises(SpaudioError, match=cause) as caught:
        train(run, EPOCHS, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert f"resume={run}" in str(caught.value)


@pytest.mark.parametrize(("code", "calls"), [(errno.EROFS, 0), (errno.ENOSPC, 2)])
def test_a_folder_that_takes_no_checkpoint(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, code: int, calls: int
) -> None:
    save, left = torch.save, calls

    def full(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(code, os.strerror(code))
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        one_line(tmp_path, os.strerror(code))
    goes_on(tmp_path, whole)


def test_a_folder_that_takes_no_log(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    one_line(tmp_path, "Is a directory")
    (tmp_path / "log.jsonl").rmdir()
    goes_on(tmp_path, whole)


def in_a_worker(do: Callable[[], None]) -> Callable[[tuple[int, int]], None]:
    """Does something in the second epoch, in a process that loads batches."""

    def before(item: tuple[int, int]) -> None:
        if item[0] == 1 and get_worker_info() is not None:
            do()

    return before


def test_a_worker_that_is_killed(tmp_path: Path, whole: Path) -> None:
    kill = in_a_worker(lambda: os.kill(os.getpid(), signal.SIGKILL))
    one_line(tmp_path, "process that loads batches has died", before=kill, workers=1)
    assert load_state(find_checkpoint(tmp_path / "checkpoints", "last"))["so_far"]["epochs"] == 1
    goes_on(tmp_path, whole)


def test_a_worker_without_memory(tmp_path: Path, whole: Path) -> None:
    def fill() -> None:
        np.empty(1 << 60, np.uint8)  # which no machine has

    one_line(tmp_path, "out of memory: .*allocate", before=in_a_worker(fill), workers=1)
    goes_on(tmp_path, whole)


def test_a_loss_that_is_not_finite_names_its_batch(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, epochs = ToyCache.frames, [0]
    asked: list[tuple[int, int]] = []

    def before(item: tuple[int, int]) -> None:
        epochs[0] = item[0]
        asked.append(item)

    def damaged(self: ToyCache, path: str) -> np.ndarray:
        return frames(self, path) * (np.nan if path == "17" and epochs[0] else 1)

    monkeypatch.setattr(loop, "CHECK", 2)
    with monkeypatch.context() as patch:
        patch.setattr(ToyCache, "frames", damaged)
        with pytest.raises(SpaudioError, match=r"epoch 2, step \d+ is nan") as caught:
            train(tmp_path, EPOCHS, before=before)
    said = re.search(r"step (\d+) is nan: .* items \[([\d, ]+)\]", str(caught.value))
    assert said is not None
    items = [int(i) for i in said[2].split(",")]
    assert 17 in items
    second = [index for epoch, index in asked if epoch == 1]
    start = second.index(items[0])
    assert second[start : start + len(items)] == items
    assert len(second) <= start + 2 * 8  # stopped at the latest one batch later
    assert len(second) < len(TRAINING)
    assert load_state(find_checkpoint(tmp_path / "checkpoints", "last"))["so_far"]["epochs"] == 1
    assert all(w.isfinite().all() for w in last(tmp_path).values())
    goes_on(tmp_path, whole)
