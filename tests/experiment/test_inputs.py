import json
from pathlib import Path

import numpy as np
import pytest

from spaudio.errors import CheckpointError
from spaudio.experiment.inputs import FILE, Inputs
from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser


def test_float32_comes_back_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mean, std = (rng.standard_normal(64).astype(np.float32) for _ in range(2))
    Inputs(("a", "ü,b"), BandNormaliser("clip", mean, std), 1.25).save(tmp_path)
    back = Inputs.load(tmp_path)
    assert back.classes == ("a", "ü,b")
    assert back.longest_seconds == 1.25
    assert isinstance(back.normaliser, BandNormaliser)
    assert back.normaliser.mode == "clip"
    assert np.array_equal(back.normaliser.mean, mean)
    assert np.array_equal(back.normaliser.std, std)
    assert back.normaliser.std.dtype == np.float32
    level = LevelNormaliser("global", 0.1 + 0.2)
    Inputs(("a",), level, 1.0, multi_label=True).save(tmp_path)
    assert Inputs.load(tmp_path) == Inputs(("a",), level, 1.0, multi_label=True)


def test_a_run_without_them_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no inputs\.json.*name the folder of a run"):
        Inputs.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{}", json.dumps({"mean": ["x"], "std": [1]})])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"inputs\.json"):
        Inputs.load(tmp_path)
