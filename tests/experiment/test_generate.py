"""``spaudio generate``, and the figure of a path, on a run that was never trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from spaudio.cli import main
from spaudio.errors import CheckpointError, ConfigError, DataError
from spaudio.experiment.generate import continue_text, load_language_model
from spaudio.experiment.model import build_language_model
from spaudio.experiment.path import draw_path
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.text.corpus import ALPHABET
from spaudio.train.checkpoint import save_checkpoint


def write_run(folder: Path, filter_name: str = "depthwise") -> DictConfig:
    shape = {"dim": 12, "layers": 2, "heads": 2, "max_tokens": 16, "causal": True}
    config = OmegaConf.create(
        {"kind": "text", "seed": 0, "context": 16, "model": shape, "filter": {"name": filter_name}}
    )
    model = build_language_model(config, len(ALPHABET))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    folder.mkdir(exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml")
    save_checkpoint(folder / "checkpoints", "best", 1, model.state_dict())
    return config


def cli(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(arguments)
    return capsys.readouterr().out


def test_the_command_continues_the_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path)
    base = ["generate", str(tmp_path), "--prompt", "the cat", "--length", "40"]
    drawn = cli([*base, "--seed", "3", "--top-k", "5"], capsys)
    assert drawn.startswith("the cat")
    assert len(drawn) == 7 + 40 + 1
    assert set(drawn[:-1]) <= set(ALPHABET)
    assert cli([*base, "--seed", "3", "--top-k", "5"], capsys) == drawn
    assert cli([*base, "--seed", "4", "--top-k", "5"], capsys) != drawn
    greedy = cli([*base, "--temperature", "0"], capsys)
    assert greedy == cli([*base, "--temperature", "0", "--seed", "9"], capsys)
    assert greedy[7:-1] == continue_text(tmp_path, "the cat", 40, temperature=0, cached=False)


def test_what_the_user_can_mend_is_named(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(DataError, match=r"'!', 'T', 'é'; .*lower-case"):
        continue_text(tmp_path, "The café!", 3)
    with pytest.raises(ConfigError, match="prompt is empty"):
        continue_text(tmp_path, "", 3)
    with pytest.raises(SystemExit, match=r"^error: temperature .*got -1.0$"):
        main(["generate", str(tmp_path), "--temperature", "-1"])
    with pytest.raises(SystemExit, match=r"^error: .*not a run's folder"):
        main(["generate", str(tmp_path / "none")])


def test_a_run_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Classifier(3, 2, EncoderConfig(dim=12, layers=1, heads=2), {"name": "none"})
    monkeypatch.setattr("spaudio.experiment.generate.load_models", lambda run: (other, other))
    with pytest.raises(CheckpointError, match="run of a classifier"):
        load_language_model(tmp_path)


def test_a_path_is_drawn_where_there_is_a_filter(tmp_path: Path) -> None:
    text = "a b c"
    symbols = torch.tensor([ALPHABET.index(letter) for letter in text])
    for name, expected in (("none", None), ("haar", tmp_path / "path.png")):
        model = build_language_model(write_run(tmp_path, name), len(ALPHABET))
        assert draw_path(tmp_path, model, symbols, title=text, labels=text) == expected
        assert (tmp_path / "path.png").is_file() == (expected is not None)
    shape = EncoderConfig(dim=12, layers=2, heads=2, filter_layers=[1])
    clip = Classifier(3, 2, shape, {"name": "bank", "num_filters": 3, "kernel_size": 2})
    assert draw_path(tmp_path, clip, torch.randn(9, 3), title="clip") is not None
    assert draw_path(tmp_path, clip, torch.randn(1, 3), title="one token") is None
