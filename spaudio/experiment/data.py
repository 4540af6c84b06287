"""From a recipe's configuration to the tokens of its three splits."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spaudio.audio.manifest import Clip
from spaudio.audio.prepare import prepare
from spaudio.audio.split import carve_validation, split_by_fold
from spaudio.errors import ConfigError, DataError
from spaudio.experiment.settings import check_arguments
from spaudio.tokens.augment import Augment, AugmentConfig
from spaudio.tokens.augment_waveform import WaveformAugment
from spaudio.tokens.cache import FeatureCache, build_cache
from spaudio.tokens.dataset import SegmentConfig, TokenDataset
from spaudio.tokens.front_end import TokenSettings, read_tokens
from spaudio.tokens.normalise import LevelNormaliser, Normaliser
from spaudio.tokens.samples import WaveformConfig


@dataclass(frozen=True)
class RecipeData:
    """The three splits of a recipe as tokens, and what they were made of.

    Args:
        train: With variations.
        valid: Carved from the training clips, or the data set's own.
        test: To be run once, at the end.
        clips: All clips, each with its split.
        skipped: Number of listed clips that were left out (``skip_bad``).
        classes: Class names, in the order of the model's outputs.
        root: Folder that the clips' paths are relative to.
        features: Width of a token as the model projects it.
        frame_seconds: From one frame to the next.
        token_seconds: From one token to the next.
        cache: Frames of all clips.
        normaliser: Fitted on the training split.
        multi_label: A clip may have several classes.
        segment_seconds: Length that clips are cut into, or None where they are taken whole.
    """

    train: TokenDataset
    valid: TokenDataset
    test: TokenDataset
    clips: list[Clip]
    skipped: int
    classes: tuple[str, ...]
    root: Path
    features: int
    frame_seconds: float
    token_seconds: float
    cache: FeatureCache
    normaliser: Normaliser | LevelNormaliser
    multi_label: bool
    segment_seconds: float | None


def load_data(config: DictConfig, scripts: Path) -> RecipeData:
    """Prepares a recipe's data set, where that has not been done, and opens its splits.

    Args:
        config: The composed configuration.
        scripts: The folder ``data_prep``.

    Returns:
        The splits.

    Raises:
        ConfigError: If a setting is unknown or out of range.
        DataError: If the data set is missing or has clips that cannot be used.
    """
    options = _plain(config.prep_options)
    find = prep_function(scripts, config.prep, options)
    prepared = prepare(
        config.recipe,
        lambda work: find(work, **options),
        folder=Path(config.data),
        options=options,
        skip_bad=config.skip_bad,
        workers=2,
    )
    clips = list(prepared.clips)
    if config.get("fold") is not None:
        clips = split_by_fold(clips, config.fold)
    if not any(clip.split == "valid" for clip in clips):
        if prepared.multi_label:
            raise DataError(f"{config.recipe}: a multi-label set must bring its validation split")
        fraction, by = config.validation.fraction, config.validation.by
        clips = carve_validation(clips, fraction, config.seed, by)

    tokens = read_tokens(_plain(config.tokens))
    augment = make_augment(tokens, AugmentConfig(**_plain(config.augment)))
    segments = SegmentConfig(**_plain(config.get("segments") or OmegaConf.create()))
    cache = build_cache(clips, prepared.root, tokens.cached, features_folder(config))
    splits = {s: [c for c in clips if c.split == s] for s in ("train", "valid", "test")}
    for split, members in splits.items():
        if not members:
            raise ConfigError(
                f"the {split} split of {config.recipe} is empty; see fold and prep_options"
            )
    training = (cache.frames(clip.path) for clip in splits["train"])
    learned = isinstance(tokens.front_end, WaveformConfig)
    normaliser: Normaliser | LevelNormaliser = (
        LevelNormaliser.fit(tokens.normalise, training)
        if learned
        else Normaliser.fit(tokens.normalise, training)
    )
    frame_seconds = tokens.front_end.hop_samples / tokens.front_end.sample_rate

    def dataset(split: str) -> TokenDataset:
        return TokenDataset(
            splits[split],
            prepared.labels,
            cache,
            normaliser,
            stack=tokens.stack,
            augment=augment if split == "train" else None,
            seed=config.seed,
            segments=segments,
            frame_seconds=frame_seconds,
            multi_label=prepared.multi_label,
        )

    return RecipeData(
        train=dataset("train"),
        valid=dataset("valid"),
        test=dataset("test"),
        clips=clips,
        skipped=len(prepared.skipped),
        classes=prepared.labels,
        root=prepared.root,
        features=tokens.features,
        frame_seconds=frame_seconds,
        token_seconds=tokens.stack * frame_seconds,
        cache=cache,
        normaliser=normaliser,
        multi_label=prepared.multi_label,
        segment_seconds=segments.seconds,
    )


def make_augment(tokens: TokenSettings, config: AugmentConfig) -> Augment:
    """Returns the variations of training clips for a front-end's tokens."""
    if isinstance(tokens.front_end, WaveformConfig):
        return WaveformAugment(config, tokens.front_end)
    return Augment(config)


def features_folder(config: DictConfig) -> Path:
    """Returns the folder that holds the cached features of a recipe."""
    return Path(config.data) / str(config.recipe) / "features"


def prep_function(scripts: Path, name: str, options: dict[str, Any]) -> Callable[..., Any]:
    """Loads ``prepare`` of ``data_prep/<name>.py`` and checks that it takes the options.

    The scripts belong to a checkout, not to the installed package, so they are loaded by their
    place. The name comes from the recipe's own YAML, never from a checkpoint.
    """
    known = sorted(p.stem for p in scripts.glob("*.py") if p.stem != "__init__")
    if not re.fullmatch(r"\w+", str(name)) or name not in known:
        raise ConfigError(f"prep={name}: there is no such script in {scripts}; it has {known}")
    spec = importlib.util.spec_from_file_location(f"data_prep_{name}", scripts / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ConfigError(f"prep={name}: cannot load {scripts / name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    find: Callable[..., Any] = module.prepare
    check_arguments(find, options, "prep_options")
    return find


def _plain(config: DictConfig) -> dict[str, Any]:
    """Turns a group of settings into a plain dictionary."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return plain
