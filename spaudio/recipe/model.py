"""From a run's configuration, and its checkpoint, to its model and the figures of its filters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from accelerate.utils import set_seed
from omegaconf import DictConfig
from torch import Tensor, nn

from spaudio.errors import CheckpointError
from spaudio.filters import TokenFilter, record_masks
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.language import LanguageModel
from spaudio.recipe.data import RecipeData
from spaudio.recipe.run_folder import read_run_config
from spaudio.report.filter_plots import plot_filters, plot_token_mask
from spaudio.train.checkpoint import find_checkpoint, load_weights

Model = TypeVar("Model", bound=nn.Module)


def encoder_config(config: DictConfig) -> EncoderConfig:
    """Reads the shape of the transformer.

    Raises:
        ConfigError: If a value is out of range.
    """
    return EncoderConfig(**{k: v for k, v in config.model.items() if k != "pooling"})


def build_model(config: DictConfig, features: int, classes: int) -> Classifier:
    """Builds a run's model as it is before training; the seed decides its parameters.

    Args:
        config: The composed configuration.
        features: Width of an incoming token.
        classes: Number of classes.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """
    set_seed(config.seed)
    return Classifier(
        features, classes, encoder_config(config), config.filter, config.model.pooling
    )


def build_language_model(config: DictConfig, symbols: int) -> LanguageModel:
    """Builds a text run's model as it is before training; the seed decides its parameters.

    Args:
        config: The composed configuration.
        symbols: Size of the alphabet.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """
    set_seed(config.seed)
    return LanguageModel(symbols, encoder_config(config), config.filter)


def is_text(config: DictConfig) -> bool:
    """Returns whether a configuration is that of a text recipe."""
    return bool(config.get("kind") == "text")


def load_models(run: Path) -> tuple[Classifier, Classifier] | tuple[LanguageModel, LanguageModel]:
    """Builds a run's model before training and as its best checkpoint has it.

    Args:
        run: The run's folder.

    Returns:
        Untrained and trained model.

    Raises:
        CheckpointError: If the folder is not a run's, or its weights do not fit its configuration.
    """
    config = read_run_config(run)
    weights = load_weights(find_checkpoint(run / "checkpoints", "best"))
    if is_text(config):
        symbols = _sizes(run, weights, "embed.weight")[0]
        text = build_language_model(config, symbols), build_language_model(config, symbols)
        return text[0], _loaded(text[1], weights, run)
    features = _sizes(run, weights, "project.weight")[1]
    classes = _sizes(run, weights, "head.1.weight")[0]
    before, after = (build_model(config, features, classes) for _ in range(2))
    return before, _loaded(after, weights, run)


def draw_filters(run: Path) -> Path | None:
    """Draws a run's kernels and their responses, before and after training.

    Args:
        run: The run's folder.

    Returns:
        ``filters.png`` in it, or None where the run has no filter with kernels.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    config = read_run_config(run)
    before, after = (filters_of(model) for model in load_models(run))
    if not after:
        return None
    path = run / "filters.png"
    hop_seconds = None  # a character has no duration
    if not is_text(config):
        hop = config.tokens.stack * round(config.tokens.hop * config.tokens.sample_rate)
        hop_seconds = hop / config.tokens.sample_rate
    plot_filters(after, path, before=before, hop_seconds=hop_seconds)
    return path


@torch.inference_mode()
def draw_mask(run: Path, model: Classifier, data: RecipeData) -> Path | None:
    """Draws how the mask of the first token-adaptive filter opens over one clip.

    Args:
        run: The run's folder.
        model: Trained.
        data: The clip is the first one of the test split.

    Returns:
        ``mask.png`` in the run's folder, or None where no filter is token-adaptive.
    """
    clip = data.test.clips[0]
    tokens = torch.from_numpy(data.test[0, 0].tokens).unsqueeze(0)
    tokens = tokens.to(next(model.parameters()).device)
    masks = record_masks(model.eval(), lambda: model(tokens))
    if not masks:
        return None
    name, mask = next(iter(masks.items()))
    token_filter = model.get_submodule(name)
    plot_token_mask(
        mask[0].float().cpu(),
        torch.from_numpy(data.cache.frames(clip.path)).T,
        run / "mask.png",
        hop_seconds=data.token_seconds,
        frame_seconds=data.frame_seconds,
        filter=token_filter if isinstance(token_filter, TokenFilter) else None,
        title=f"{clip.path} ({clip.label}), {name}",
    )
    return run / "mask.png"


def filters_of(model: Classifier | LanguageModel) -> dict[str, TokenFilter]:
    """Returns the filters that have kernels, by name of their layer."""
    return {
        f"layer {i}": module
        for i, module in enumerate(model.encoder.filters)
        if isinstance(module, TokenFilter) and len(module.taps()) > 0
    }


def _loaded(model: Model, weights: dict[str, Tensor], run: Path) -> Model:
    """Puts weights into a model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights of {run} do not fit its config.yaml: {error}"
        ) from error
    return model.eval()


def _sizes(run: Path, weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Reads the shape of a parameter."""
    try:
        return tuple(weights[name].shape)
    except KeyError as error:
        raise CheckpointError(
            f"the checkpoint of {run} is not one of its config.yaml's kind: no {error}"
        ) from error
