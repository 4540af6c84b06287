"""Finished runs, made in a second: a run's folder with a model that was never trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from spaudio.recipe.compose import compose as compose_recipe
from spaudio.recipe.inputs import Inputs
from spaudio.recipe.model import build_model
from spaudio.recipe.run_folder import create_run_folder
from spaudio.tokens.front_end import read_tokens
from spaudio.tokens.logmel import LogMelConfig
from spaudio.tokens.normalise import LevelNormaliser, Normaliser
from spaudio.train.checkpoint import save_checkpoint

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
CLASSES = ("cat", "cow", "dog", "owl")


def compose(recipe: str, *overrides: str) -> DictConfig:
    """A recipe's configuration as its ``run.py`` composes it."""
    return compose_recipe(RECIPES / recipe, overrides)


def make_untrained_run(folder: Path, *overrides: str, longest_seconds: float = 0.5) -> Path:
    """The folder of a run at 8 kHz with four classes, whose output is far from uniform."""
    small = ["preset=debug", "model.layers=1", "tokens.sample_rate=8000"]
    if "tokens=waveform" not in overrides:
        small.append("tokens.n_mels=20")
    config = compose("folder", "source=unused", f"runs={folder}", *small, *overrides)
    tokens = read_tokens(config.tokens)
    model = build_model(config, tokens.features, len(CLASSES))
    for parameter in model.parameters():
        parameter.data.mul_(2)  # differences between clips show in the probabilities
    run = create_run_folder(OmegaConf.merge(config, {"run_id": "untrained"}))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    normaliser: Normaliser | LevelNormaliser = LevelNormaliser(tokens.normalise, 0.1)
    if isinstance(tokens.front_end, LogMelConfig):
        mean = rng.normal(-6, 1, tokens.front_end.n_mels).astype(np.float32)
        std = rng.uniform(1, 3, tokens.front_end.n_mels).astype(np.float32)
        normaliser = Normaliser(tokens.normalise, mean, std)
    Inputs(CLASSES, normaliser, longest_seconds).save(run)
    save_checkpoint(run / "checkpoints", "best", 1, model.state_dict())
    return run
