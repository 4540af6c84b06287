import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from spaudio.errors import CheckpointError
from spaudio.experiment.inputs import INPUTS, Inputs
from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser
from spaudio.tokens.pauses import Pauses
from spaudio.training.alignment import Alignment


def test_float32_comes_back_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mean, std = (rng.uniform(0.1, 9, 64).astype(np.float32) for _ in range(2))
    pauses = Pauses((3, 40), (0, 7))
    normaliser = BandNormaliser("clip_level", mean, std, pauses, 0.1)
    Inputs(("a", "ü,b"), normaliser, 1.25, 0.5, lowest_rate=8000).save(tmp_path)
    back = Inputs.load(tmp_path)
    assert back.lowest_rate == 8000
    assert back.classes == ("a", "ü,b")
    assert (back.longest_seconds, back.typical_seconds) == (1.25, 0.5)
    assert isinstance(back.normaliser, BandNormaliser)
    assert back.normaliser.mode == "clip_level"
    assert (back.normaliser.pauses, back.normaliser.quietest) == (pauses, 0.1)
    assert np.array_equal(back.normaliser.mean, mean)
    assert np.array_equal(back.normaliser.std, std)
    assert back.normaliser.std.dtype == np.float32
    level = LevelNormaliser("global", 0.1 + 0.2)
    Inputs(("a",), level, 1.0, 1.0, multi_label=True).save(tmp_path)
    assert Inputs.load(tmp_path) == Inputs(("a",), level, 1.0, 1.0, multi_label=True)
    alignment = Alignment(*map(torch.from_numpy, (mean, std)))
    Inputs(("a",), level, 1.0, 1.0, alignment=alignment).save(tmp_path)
    found = Inputs.load(tmp_path).alignment
    assert found is not None
    assert torch.equal(found.mean, alignment.mean)
    assert torch.equal(found.std, alignment.std)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for text in ("", "[1]", "{}", json.dumps({"mean": ["x"], "std": [1]}), "[" * 100_000):
        (tmp_path / INPUTS).write_text(text)
        with pytest.raises(CheckpointError, match=r"inputs\.json"):
            Inputs.load(tmp_path)


def test_numbers_that_would_give_no_finite_tokens_are_named(tmp_path: Path) -> None:
    """Not probabilities that are NaN, and no traceback."""
    normaliser = BandNormaliser("global", np.zeros(3, np.float32), np.ones(3, np.float32))
    Inputs(("a",), normaliser, 1.0, 1.0).save(tmp_path)
    good = json.loads((tmp_path / INPUTS).read_text())
    for damage, word in (
        ({"std": [1, 0, 1]}, "std has values that are not positive"),
        ({"std": [1, -1, 1]}, "std"),
        ({"std": [1, math.nan, 1]}, "std"),
        ({"mean": [0, math.inf, 0]}, "mean has values that are not finite"),
        ({"mean": [0, 0]}, "mean and std have shapes"),
        ({"mean": [[0, 0, 0]] * 3, "std": [[1, 1, 1]] * 3}, "mean and std have shapes"),
        ({"rms": 0}, "rms"),
        ({"quietest": 0}, "quietest"),
        ({"normalise": "Global"}, "normalise is 'Global', not one of"),
        ({"temperature": 0}, "temperature"),
        ({"longest_seconds": -1}, "longest_seconds"),
        ({"longest_seconds": 1e999}, "longest_seconds"),
        ({"embeddings": {"mean": [0], "std": [0]}}, "std"),
        ({"embeddings": [1]}, ""),
    ):
        (tmp_path / INPUTS).write_text(json.dumps({**good, **damage}))
        with pytest.raises(CheckpointError, match=f"is damaged .*{word}"):
            Inputs.load(tmp_path)
