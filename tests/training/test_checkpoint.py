import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spaudio.errors import CheckpointError
from spaudio.training import checkpoint as checkpoint_module
from spaudio.training.checkpoint import (
    HASHES,
    STATE,
    WEIGHTS,
    drop_later,
    find_checkpoint,
    load_model,
    load_state,
    load_weights,
    save_checkpoint,
)


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3,), value), "b": torch.arange(4.0).view(2, 2).t()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_stay_and_come_back(tmp_path: Path) -> None:
    for epoch in (9_998, 9_999, 10_001, 10_001):  # the same epoch can be written again
        save_checkpoint(tmp_path, "last", epoch, weights(epoch), {"epoch": epoch}, "seed: 1\n")
    assert names(tmp_path) == ["last-10001", "last-9999"]
    found = find_checkpoint(tmp_path, "last")
    assert load_state(found) == {"epoch": 10_001}
    torch.testing.assert_close(load_weights(found), weights(10_001))
    assert (found / "config.yaml").read_text() == "seed: 1\n"
    drop_later(tmp_path, "last", 10_000)  # which is not there: better a later one than none
    assert len(names(tmp_path)) == 2
    drop_later(tmp_path, "last", 9_999)  # a resumed run does the later ones again
    assert names(tmp_path) == ["last-9999"]


@pytest.mark.parametrize(
    ("name", "share"),
    [(WEIGHTS, 0.0), (STATE, 0.5), (HASHES, 0.999), (WEIGHTS, 1.0), ("config.yaml", 1.0)],
)
def test_of_a_damaged_one_the_one_before_is_taken(tmp_path: Path, name: str, share: float) -> None:
    """Damaged by truncation to a share, or by one changed bit."""
    with pytest.raises(CheckpointError, match="no checkpoint 'last'"):
        find_checkpoint(tmp_path, "last")
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, "last", epoch, weights(epoch), {"epoch": epoch}, "seed: 1\n")
    file = tmp_path / "last-0003" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[: int(share * len(content))])
    with pytest.warns(UserWarning, match=rf"last-0003/{name} is damaged"):
        assert find_checkpoint(tmp_path, "last").name == "last-0002"
    (tmp_path / "last-0002" / WEIGHTS).unlink()
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(CheckpointError, match="every checkpoint 'last'"),
    ):
        find_checkpoint(tmp_path, "last")
    assert names(tmp_path) == ["last-0002", "last-0003"]
    with pytest.raises(CheckpointError, match=WEIGHTS):
        load_weights(tmp_path / "last-0002")


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000])
def test_hashes_that_are_none_are_damage(tmp_path: Path, text: str) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, "last", epoch, weights(epoch))
    (tmp_path / "last-0002" / HASHES).write_text(text)
    with pytest.warns(UserWarning, match=rf"last-0002/{HASHES} is damaged"):
        assert find_checkpoint(tmp_path, "last").name == "last-0001"


@pytest.mark.parametrize("name", [WEIGHTS, HASHES])
def test_one_that_the_disk_cannot_read_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, "last", epoch, weights(epoch))
    code = errno.EIO

    def failing(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def reads(file: Path) -> Any:
            if file == tmp_path / "last-0002" / name:
                raise OSError(code, os.strerror(code))
            return read(file)

        return reads

    for function in ("_hash", "read_json"):
        read = getattr(checkpoint_module, function)
        monkeypatch.setattr(checkpoint_module, function, failing(read))
    with pytest.warns(UserWarning, match=rf"last-0002/{name} is damaged"):
        assert find_checkpoint(tmp_path, "last").name == "last-0001"
    code = errno.EACCES  # which the user can correct
    with pytest.raises(PermissionError):
        find_checkpoint(tmp_path, "last")


def test_a_disk_that_is_full_leaves_the_one_before(tmp_path: Path) -> None:
    """The system itself refuses to write on, at two kilobytes per file."""
    save_checkpoint(tmp_path, "last", 1, weights(1), {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        large = {"a": torch.zeros(4000)}
        for given in ((large, {"epoch": 2}), (weights(2), large)):
            with pytest.raises(CheckpointError, match=r"cannot write .*last-0002.*resume="):
                save_checkpoint(tmp_path, "last", 2, *given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["last-0001"]
    assert load_state(find_checkpoint(tmp_path, "last")) == {"epoch": 1}


def test_a_state_that_holds_code_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    made = save_checkpoint(tmp_path, "last", 1, weights(1), {"epoch": 1})
    torch.save({"epoch": Code()}, made / STATE)
    with pytest.raises(CheckpointError, match=STATE):
        load_state(made)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (nn.Linear(3, 5), r"weight is \(4, 3\) where \(5, 3\) is expected.*2 of 2 names"),
        (nn.Linear(3, 4, bias=False), r"bias is \(4,\) where none is expected.*1 of 2"),
        (nn.Sequential(nn.Linear(3, 4)), r"0\.weight is absent where \(4, 3\)"),
    ],
)
def test_another_architecture_is_named(tmp_path: Path, other: nn.Module, named: str) -> None:
    saved = save_checkpoint(tmp_path, "best", 1, nn.Linear(3, 4).state_dict())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=named):
        load_model(other, saved)
    torch.testing.assert_close(other.state_dict(), before)
    load_model(nn.Linear(3, 4), saved)
