"""Every recipe: its configurations instantiate, and it runs end to end on a tiny data set."""

from __future__ import annotations

import json
import math
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

import spaudio.conf
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.language import LanguageModel
from spaudio.recipe.model import encoder_config
from spaudio.report.text import TEXT_FILES
from spaudio.report.write import FILES
from spaudio.tokens.augment import AugmentConfig
from spaudio.tokens.logmel import LogMelConfig
from spaudio.tokens.normalise import MODES
from spaudio.train.loop import TrainerConfig
from spaudio.train.optim import OptimConfig
from tests import tiny_audio
from tests.recipe.conftest import ROOT, Run
from tests.tiny_text import write_text

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


def tiny_text8(folder: Path) -> list[str]:
    return [f"corpus={write_text(folder / 'tiny.txt.xz')}", "steps_per_epoch=5", "context=32",
            "eval.stride=16", "eval.windows=8"]  # fmt: skip


# How each recipe comes to its tiny data set. A recipe that is not here fails the suite.
TINY = {"folder": tiny_folder, "fsdd": tiny_fsdd, "notes": tiny_notes}
TINY_TEXT = {"text8": tiny_text8}
# What a text recipe chooses from; its own presets beside those of all.
TEXT_CHOICES = [
    *(choice for choice in CHOICES if choice[0] in ("filter", "optim", "preset")),
    *(("preset", preset) for preset in ("tiny", "paper", "base")),
]


def compose(recipe: str, *overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(ROOT / "recipes" / recipe), version_base="1.3"):
        return hydra.compose("config", ["hydra.searchpath=[pkg://spaudio.conf]", *overrides])


def instantiate(config: DictConfig) -> None:
    """Builds everything that a run builds from its settings, but the data."""
    tokens = dict(config.tokens)
    stack, normalise = tokens.pop("stack"), tokens.pop("normalise")
    assert normalise in MODES
    front_end = LogMelConfig(**tokens)
    AugmentConfig(**config.augment)
    TrainerConfig(**config.trainer)
    OptimConfig(**config.optim)
    shape = {key: value for key, value in config.model.items() if key != "pooling"}
    features = stack * front_end.n_mels
    Classifier(features, 10, EncoderConfig(**shape), config.filter, config.model.pooling)


def test_every_recipe_has_a_debug_run_and_a_readme() -> None:
    assert sorted({**TINY, **TINY_TEXT}) == RECIPES
    for recipe in RECIPES:
        assert (ROOT / "recipes" / recipe / "README.md").is_file()


@pytest.mark.parametrize("recipe", TINY)
@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_of_every_recipe_instantiates(recipe: str, group: str, choice: str) -> None:
    if group == "model" and choice != "tiny":
        # Large models only have to be described here; building them is slow.
        config = compose(recipe, f"{group}={choice}")
        EncoderConfig(**{k: v for k, v in config.model.items() if k != "pooling"})
        return
    small = () if group == "model" else ("model=tiny",)
    instantiate(compose(recipe, *small, f"{group}={choice}"))


@pytest.mark.parametrize("recipe", TINY_TEXT)
@pytest.mark.parametrize(("group", "choice"), TEXT_CHOICES)
def test_every_choice_of_every_text_recipe_instantiates(
    recipe: str, group: str, choice: str
) -> None:
    config = compose(recipe, f"{group}={choice}")
    TrainerConfig(**config.trainer)
    OptimConfig(**config.optim)
    shape = encoder_config(config)
    assert shape.causal
    if choice != "base":  # slow to build
        LanguageModel(27, shape, config.filter)


@pytest.mark.parametrize("recipe", TINY)
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
    text = (run / "report.md").read_text()
    for figure in ("filters.png", "path.png"):
        assert (run / figure).stat().st_size > 0
        assert figure in text
    assert f"{report['test']['accuracy']:.4f}" in text
    assert f"{report['floor']['svm']:.4f}" in text


@pytest.mark.parametrize("recipe", TINY_TEXT)
def test_debug_text_runs_end_to_end(recipe: str, tmp_path: Path, run_recipe: Run) -> None:
    tiny = TINY_TEXT[recipe](tmp_path)
    done = run_recipe(recipe, "preset=debug", "filter=bank", "run_id=first", *tiny)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / recipe / "first"
    for name in (*TEXT_FILES, "filters.png"):
        assert (run / name).stat().st_size > 0, name
    report = json.loads((run / "report.json").read_text())
    assert report["filter"]["name"] == "bank"
    assert report["corpus"]["stand_in"]
    assert report["corpus"]["characters"] == {"train": 18_000, "valid": 1_000, "test": 1_000}
    for split in ("valid", "test"):
        assert report[split]["characters"] == 999  # all but the first
        assert 0 < report[split]["loss"] < 4
        assert report[split]["bits"] == pytest.approx(report[split]["loss"] / math.log(2))
    assert report["steps"] == 10
    assert report["step_flops"] > 0
    assert 0 < report["filter_params"] < report["num_params"]
    text = (run / "report.md").read_text()
    assert "**not text8**" in text
    assert "stride 16" in text
    assert f"{report['test']['bits']:.4f}" in text
