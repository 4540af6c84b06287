"""From a run's configuration, and its checkpoint, to its model and the figures of its filters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from omegaconf import DictConfig
from torch import Tensor

from spaudio.errors import CheckpointError
from spaudio.experiment.data import RecipeData
from spaudio.experiment.run_folder import read_run_config
from spaudio.filters import TokenFilter, record_masks
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.language import LanguageModel
from spaudio.report.filter_plots import plot_filters
from spaudio.report.front_end_plots import plot_front_end
from spaudio.report.mask_plot import plot_mask
from spaudio.tokens.dataset import collate
from spaudio.tokens.front_end import read_tokens
from spaudio.train.checkpoint import find_checkpoint, load_model, load_weights

FRONT_END_CLIPS = 256  # a few hundred clips fix a mean and a deviation of each filter


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
        features,
        classes,
        encoder_config(config),
        config.filter,
        config.model.pooling,
        read_tokens(config.tokens).module(),
    )


def fit_front_end(model: Classifier, data: RecipeData, seed: int) -> None:
    """Measures the normalisation of a learned front-end on training clips, before training.

    Args:
        model: Untrained; one without a learned front-end is left as it is.
        data: Its training split.
        seed: Draws the clips, and their variations are those of the first epoch.
    """
    if model.front_end is None:
        return
    clips = np.random.default_rng(seed).permutation(len(data.train))[:FRONT_END_CLIPS]
    batches = (collate([data.train[0, int(i)] for i in clips[j : j + 16]]) for j in
               range(0, len(clips), 16))  # fmt: skip
    model.front_end.fit_normaliser((batch.tokens, batch.padding_mask) for batch in batches)


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
    config = _model_config(run)
    checkpoint = find_checkpoint(run / "checkpoints", "best")
    weights = load_weights(checkpoint)
    if is_text(config):
        before, after = (_language_model(config, weights, run) for _ in range(2))
        load_model(after, checkpoint)
        return before, after.eval()
    untrained, trained = (_classifier(config, weights, run) for _ in range(2))
    load_model(trained, checkpoint)
    return untrained, trained.eval()


def load_best(run: Path) -> Classifier:
    """Builds a classification run's model as its best checkpoint has it, in evaluation mode.

    Args:
        run: The run's folder.

    Raises:
        CheckpointError: If the folder is not a run's, or its weights do not fit its configuration.
    """
    config = _model_config(run)
    checkpoint = find_checkpoint(run / "checkpoints", "best")
    model = _classifier(config, load_weights(checkpoint), run)
    load_model(model, checkpoint)
    return model.eval()


def _classifier(config: DictConfig, weights: Mapping[str, Tensor], run: Path) -> Classifier:
    features = _sizes(run, weights, "project.weight")[1]
    return build_model(config, features, _sizes(run, weights, "head.1.weight")[0])


def _language_model(config: DictConfig, weights: Mapping[str, Tensor], run: Path) -> LanguageModel:
    return build_language_model(config, _sizes(run, weights, "embed.weight")[0])


def draw_filters(run: Path) -> Path | None:
    """Draws a run's kernels and their responses, before and after training.

    Args:
        run: The run's folder.

    Returns:
        ``filters.png`` in it, or None where the run has no filter with kernels.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    config = _model_config(run)
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


def draw_front_end(run: Path) -> Path | None:
    """Draws the learned filters of a run's front-end against the mel scale.

    Args:
        run: The run's folder.

    Returns:
        ``frontend.png`` in it, or None where the run's front-end is not learned.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    models = load_models(run)
    before, after = (getattr(model, "front_end", None) for model in models)
    if before is None or after is None:
        return None
    path = run / "frontend.png"
    plot_front_end(after, path, before=before)
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
    front_end = model.front_end
    if front_end is None:
        spectrogram = torch.from_numpy(data.test.frames(0)).T
    else:
        spectrogram = front_end.log_frames(tokens)[0].T[front_end.centre_frequencies().argsort()]
    plot_mask(
        mask[0].float().cpu(),
        spectrogram,
        run / "mask.png",
        hop_seconds=data.token_seconds,
        frame_seconds=data.frame_seconds,
        filter=token_filter if isinstance(token_filter, TokenFilter) else None,
        title=f"{clip.path} ({clip.label}), {name}",
    )
    return run / "mask.png"


def _model_config(run: Path) -> DictConfig:
    config = read_run_config(run)
    needed = ("model", "filter", "seed", *(() if is_text(config) else ("tokens",)))
    if missing := [key for key in needed if key not in config]:
        raise CheckpointError(
            f"{run / 'config.yaml'} has no setting {missing[0]!r}; it must be as the run wrote it"
        )
    return config


def filters_of(model: Classifier | LanguageModel) -> dict[str, TokenFilter]:
    """Returns the filters that have kernels, by name of their layer."""
    return {
        f"layer {i}": module
        for i, module in enumerate(model.encoder.filters)
        if isinstance(module, TokenFilter) and len(module.taps()) > 0
    }


def _sizes(run: Path, weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Reads the shape of a parameter."""
    try:
        return tuple(weights[name].shape)
    except KeyError as error:
        raise CheckpointError(
            f"the checkpoint of {run} is not one of its config.yaml's kind: no {error}"
        ) from error
