"""Every recipe: its configurations instantiate, and it runs end to end on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import spaudio.conf
from spaudio.cli import main
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.recipe.model import load_models
from spaudio.report.write import FILES
from spaudio.tokens.augment import AugmentConfig
from spaudio.tokens.front_end import read_tokens
from spaudio.train.loop import TrainerConfig
from spaudio.train.optim import OptimConfig
from tests import tiny_audio
from tests.recipe.conftest import ROOT, Run

CONF = Path(spaudio.conf.__file__).parent
RECIPES = sorted(path.parent.name for path in (ROOT / "recipes").glob("*/run.py"))
CHOICES = [
    (folder.name, file.stem)
    for folder in sorted(CONF.iterdir())
    if folder.is_dir() and folder.name != "__pycache__"
    for file in sorted(folder.glob("*.yaml"))
]


def tiny_fsdd(folder: Path) -> list[str]:
    return [f"source={tiny_audio.make_fsdd_zip(folder / 'fsdd.zip')}"]


def tiny_folder(folder: Path) -> list[str]:
    made = tiny_audio.make_class_folders(folder / "sounds")
    return [f"source={made}", r"group_regex='(g\d+)_'"]


def tiny_notes(_: Path) -> list[str]:
    return ["families=[organ,brass]", "programs_per_family=3", "num_pitches=3", "num_velocities=2"]


# How each recipe comes to its tiny data set. A recipe that is not here fails the suite.
TINY = {"folder": tiny_folder, "fsdd": tiny_fsdd, "notes": tiny_notes}


def compose(recipe: str, *overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(ROOT / "recipes" / recipe), version_base="1.3"):
        return hydra.compose("config", ["hydra.searchpath=[pkg://spaudio.conf]", *overrides])


def instantiate(config: DictConfig) -> None:
    """Builds everything that a run builds from its settings, but the data."""
    tokens = read_tokens(config.tokens)
    AugmentConfig(**config.augment)
    TrainerConfig(**config.trainer)
    OptimConfig(**config.optim)
    shape = {key: value for key, value in config.model.items() if key != "pooling"}
    Classifier(
        tokens.features, 10, EncoderConfig(**shape), config.filter, config.model.pooling,
        tokens.module(),
    )  # fmt: skip


def test_every_recipe_has_a_debug_run_and_a_readme() -> None:
    assert sorted(TINY) == RECIPES
    for recipe in RECIPES:
        assert (ROOT / "recipes" / recipe / "README.md").is_file()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_of_every_recipe_instantiates(recipe: str, group: str, choice: str) -> None:
    if group == "model" and choice != "tiny":
        # Large models only have to be described here; building them is slow.
        config = compose(recipe, f"{group}={choice}")
        EncoderConfig(**{k: v for k, v in config.model.items() if k != "pooling"})
        return
    small = () if group == "model" else ("model=tiny",)
    instantiate(compose(recipe, *small, f"{group}={choice}"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_debug_runs_end_to_end(recipe: str, tmp_path: Path, run_recipe: Run) -> None:
    tiny = TINY[recipe](tmp_path)
    done = run_recipe(recipe, "preset=debug", "filter=bank", "run_id=first", *tiny)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / recipe / "first"
    for name in FILES:
        assert (run / name).stat().st_size > 0, name
    assert (run / "checkpoints").is_dir()
    report = json.loads((run / "report.json").read_text())
    assert report["recipe"] == recipe
    assert report["filter"]["name"] == "bank"
    assert 0 <= report["test"]["interval"][0] <= report["test"]["accuracy"] <= 1
    assert report["test"]["accuracy"] <= report["test"]["interval"][1]
    assert 0 < report["floor"]["majority"] <= report["floor"]["svm"] <= 1
    assert 1 <= report["best_epoch"] <= report["epochs"]
    assert 0 < report["filter_params"] < report["num_params"]
    assert set(report["seconds"]) == {"prepare", "train", "test"}
    assert min(report["seconds"].values()) > 0
    assert report["tokens_per_second"] > 0
    assert report["versions"]["torch"]
    assert report["git_commit"]
    support = sum(row["support"] for row in report["test"]["per_class"].values())
    lines = (run / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + support == 1 + report["clips"]["test"]
    config = OmegaConf.load(run / "config.yaml")
    assert config.filter.name == "bank"
    assert config.model.dim == 16  # what debug makes small is what was run
    assert (run / "filters.png").stat().st_size > 0
    text = (run / "report.md").read_text()
    assert "filters.png" in text
    assert f"{report['test']['accuracy']:.4f}" in text
    assert f"{report['floor']['svm']:.4f}" in text


def test_waveform_tokens_by_one_override(tmp_path: Path, run_recipe: Run) -> None:
    done = run_recipe(
        "folder", "tokens=waveform", "filter=adaptive", "filter.num_filters=6", "filter.width=8",
        "filter.heads=2", "preset=debug", "augment.mixup=0.4", "augment.warp=0.1", "run_id=first",
        *tiny_folder(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tokens=waveform leaves out augment.warp" in done.stderr
    run = tmp_path / "runs" / "folder" / "first"
    for name in (*FILES, "frontend.png", "filters.png", "mask.png"):
        assert (run / name).stat().st_size > 0, name
    report = json.loads((run / "report.json").read_text())
    assert report["tokens"]["name"] == "waveform"
    assert report["front_end_params"] == 40 * 400
    assert report["token_seconds"] == 0.01
    assert "frontend.png" in (run / "report.md").read_text()
    before, after = load_models(run)
    assert before.front_end is not None
    assert after.front_end is not None
    assert not torch.equal(before.front_end.filters.weight, after.front_end.filters.weight)
    assert after.front_end.mean.abs().sum() > 0  # measured, and kept with the weights
    (run / "frontend.png").unlink()
    main(["filters", str(run)])
    assert (run / "frontend.png").stat().st_size > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_waveform_tokens_take_what_is_their_own_of_every_recipe(recipe: str) -> None:
    config = compose(recipe, "tokens=waveform")
    tokens, plain = read_tokens(config.tokens), read_tokens(compose(recipe).tokens)
    assert tokens.module() is not None
    assert tokens.stack == plain.stack
    assert tokens.front_end.hop_samples == plain.front_end.hop_samples
    assert tokens.front_end.sample_rate == plain.front_end.sample_rate
