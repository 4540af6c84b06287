"""Failures of the machine: each gives a one-line error, and the run resumes to the same bits."""

import errno
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch._utils import ExceptionWrapper
from torch.utils.data import get_worker_info

from spaudio.errors import DataError, SpaudioError
from spaudio.training import loop
from spaudio.training.checkpoint import find_checkpoint, load_state
from spaudio.training.failures import named_failures
from tests.fixtures.toy import ToyCache, last, train

EPOCHS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("failures") / "whole"
    train(run, EPOCHS)
    return run


def fails(run: Path, cause: str, **settings: Any) -> str:
    """Trains until a one-line error; returns it."""
    with pytest.raises(SpaudioError, match=cause) as caught:
        train(run, EPOCHS, **settings)
    # The frames hold the workers. If these are ended by the garbage collection of another test, it
    # waits for five seconds for each.
    error: BaseException | None = caught.value
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__
    assert "\n" not in str(caught.value)
    assert f"resume={run}" in str(caught.value)
    return str(caught.value)


def goes_on(run: Path, whole: Path, after: int | None = None) -> None:
    """Resumes a run; ``after`` so many epochs."""
    if after is not None:
        state = load_state(find_checkpoint(run / "checkpoints", "last"))
        assert state["so_far"]["epochs"] == after
    train(run, EPOCHS, resume=None)
    torch.testing.assert_close(last(run), last(whole), atol=0, rtol=0)


@pytest.mark.parametrize(("code", "calls"), [(errno.EROFS, 0), (errno.ENOSPC, 2)])
def test_a_folder_that_takes_no_checkpoint(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, code: int, calls: int
) -> None:
    save, left = torch.save, [None] * calls

    def full(*arguments: Any) -> None:
        if not left:
            raise OSError(code, os.strerror(code))
        left.pop()
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        fails(tmp_path, os.strerror(code))
    goes_on(tmp_path, whole)


def test_a_folder_that_takes_no_log(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    assert "checkpoint" not in fails(tmp_path, "Is a directory")  # of which there is none
    (tmp_path / "log.jsonl").rmdir()
    goes_on(tmp_path, whole)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    np.empty(1 << 60, np.uint8)  # which no machine has


def fill_with_torch() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def find_a_fault() -> None:
    raise DataError("the features of a.wav are damaged; run the same command again")


@pytest.mark.parametrize(
    ("do", "cause"),
    [
        (kill, "process that loads batches has died"),
        (fill, "out of memory: .*allocate"),
        (find_a_fault, "^the features of a.wav are damaged; run .* again; the last checkpoint is"),
    ],
)
def test_a_worker_that_fails(
    tmp_path: Path, whole: Path, do: Callable[[], None], cause: str
) -> None:
    def before(item: tuple[int, int]) -> None:
        if item[0] == 1 and get_worker_info() is not None:
            do()

    fails(tmp_path, cause, before=before, workers=1)
    goes_on(tmp_path, whole, after=1)


def directly(do: Callable[[], None]) -> None:
    do()


def as_of_a_worker(do: Callable[[], None]) -> None:
    """Fails as a loader does whose process has failed: with the traceback in the message."""
    try:
        do()
    except (MemoryError, RuntimeError):
        ExceptionWrapper(where="in DataLoader worker process 0").reraise()


@pytest.mark.parametrize("do", [fill, fill_with_torch])
@pytest.mark.parametrize("how", [directly, as_of_a_worker])
def test_lack_of_memory_is_one_line(
    how: Callable[[Callable[[], None]], None], do: Callable[[], None]
) -> None:
    with (
        pytest.raises(SpaudioError, match=r"^out of memory: .*allocate.* resume=run$") as caught,
        named_failures(Path("run")),
    ):
        how(do)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_names_its_batch(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, asked = ToyCache.frames, [(0, 0)]

    def damaged(self: ToyCache, path: str, *part: Any) -> np.ndarray:
        return frames(self, path, *part) * (np.nan if path == "17" and asked[-1][0] else 1)

    assert loop.CHECK <= 50
    monkeypatch.setattr(loop, "CHECK", 2)
    with monkeypatch.context() as patch:
        patch.setattr(ToyCache, "frames", damaged)
        error = fails(tmp_path, r"epoch 2, step \d+ is nan", before=asked.append)
    said = re.search(r"the batch of ([\d, ]+)\. ", error)
    assert said is not None
    items = [int(i) for i in said[1].split(",")]
    assert 17 in items
    second = [index for epoch, index in asked if epoch == 1]
    start = second.index(items[0])
    assert second[start : start + len(items)] == items
    assert len(second) <= start + 2 * 8  # stopped at the latest one batch later
    assert all(w.isfinite().all() for w in last(tmp_path).values())
    goes_on(tmp_path, whole, after=1)


def test_a_gradient_that_is_not_finite_becomes_no_checkpoint(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, calls = Accelerator.clip_grad_norm_, iter(range(10))

    def damaged(self: Accelerator, parameters: Iterable[nn.Parameter], most: float) -> Any:
        several = list(parameters)
        if next(calls) == 9:  # the last step of the second epoch
            assert several[0].grad is not None
            several[0].grad.fill_(torch.inf)
        return clip(self, several, most)

    with monkeypatch.context() as patch:
        patch.setattr(Accelerator, "clip_grad_norm_", damaged)
        fails(tmp_path, r"gradient of epoch 2, step 5 is (nan|inf)")
    assert all(w.isfinite().all() for w in last(tmp_path).values())
    goes_on(tmp_path, whole, after=1)
