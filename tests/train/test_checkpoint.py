from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from spaudio.errors import CheckpointError
from spaudio.train.checkpoint import (
    STATE,
    WEIGHTS,
    find_checkpoint,
    load_model,
    load_state,
    load_weights,
    save_checkpoint,
)


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3,), value), "b": torch.arange(4.0).view(2, 2).t()}


def test_the_newest_one_stays_and_comes_back(tmp_path: Path) -> None:
    for epoch in range(1, 4):
        save_checkpoint(tmp_path, "last", epoch, weights(epoch), {"epoch": epoch}, "seed: 1\n")
    assert [p.name for p in tmp_path.iterdir()] == ["last-0003"]
    found = find_checkpoint(tmp_path, "last")
    assert load_state(found) == {"epoch": 3}
    torch.testing.assert_close(load_weights(found), weights(3))
    assert (found / "config.yaml").read_text() == "seed: 1\n"


def test_a_write_that_breaks_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, "last", 1, weights(1), {"epoch": 1})

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("spaudio.train.checkpoint.torch.save", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, "last", 2, weights(2), {"epoch": 2})
    assert load_state(find_checkpoint(tmp_path, "last")) == {"epoch": 1}


def test_the_same_epoch_can_be_written_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "best", 2, weights(1))
    save_checkpoint(tmp_path, "best", 2, weights(5))
    torch.testing.assert_close(load_weights(find_checkpoint(tmp_path, "best")), weights(5))


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint 'best'"):
        find_checkpoint(tmp_path, "best")
    made = save_checkpoint(tmp_path, "best", 1, weights(1), {"epoch": 1})
    for name in (WEIGHTS, STATE):
        content = (made / name).read_bytes()
        (made / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=WEIGHTS):
        load_weights(made)
    with pytest.raises(CheckpointError, match=STATE):
        load_state(made)


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
    model = nn.Linear(3, 4)
    saved = save_checkpoint(tmp_path, "best", 1, model.state_dict())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=named):
        load_model(other, saved)
    torch.testing.assert_close(other.state_dict(), before)
    load_model(like := nn.Linear(3, 4), saved)
    torch.testing.assert_close(like.state_dict(), model.state_dict())
