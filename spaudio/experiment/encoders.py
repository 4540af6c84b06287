"""Pretrained encoders as models of a run: front-end, classifier and default settings."""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from hydra.core.override_parser.types import Override

from spaudio.experiment.settings import AudioSettings, PretrainedConfig, TextSettings
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.encoded import EncodedFrontEnd
from spaudio.model.pretrained.load_encoder import load_encoder
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder
from spaudio.tokens.front_end import FrontEnd, make_front_end
from spaudio.tokens.normalise import Normaliser

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Peak learning rate, and the head's share of it; the head starts from a fitted probe.
_RATES = {"full": (1e-4, 0.1)}
_OTHER_RATES = (3e-3, 0.1)
# Clips, including variations, that a head is fitted to by default; more take long to compute.
_ENOUGH_CLIPS = 4000
_MOST_VARIATIONS = 2
# Strengths of these variations. On RAVDESS, stronger ones were worse, and so were masks.
_VARIED = {"gain": 0.5, "tilt": 0.5, "warp": 0.1, "tempo": 0.15}


def is_folder(source: str) -> bool:
    """Whether the source of a pretrained encoder is a folder, existing or not, and not a Hub id."""
    return Path(source).is_dir() or not HUB_ID.fullmatch(source)


def open_encoder(
    settings: AudioSettings | TextSettings, source: str | None = None
) -> PretrainedEncoder | None:
    """Loads the pretrained encoder of a run; None if it has none.

    Args:
        settings: Settings of the run.
        source: Its folder or Hub id, if it has moved since training.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    model = settings.model
    if not isinstance(model, PretrainedConfig):
        return None
    return load_encoder(source or str(model.source))


def open_front_end(
    settings: AudioSettings,
    normaliser: Normaliser | None = None,
    base: PretrainedEncoder | None = None,
) -> FrontEnd:
    """Builds the front-end of a run.

    Args:
        settings: Settings of the run.
        normaliser: Fitted on the training split; None if only frames are needed. That of a
            pretrained encoder is fixed.
        base: From :func:`open_encoder`; None loads it.

    Raises:
        ConfigError: If the pretrained encoder cannot be loaded, or cannot be adapted in this way.
    """
    base = base or open_encoder(settings)
    if base is None:
        return make_front_end(settings.tokens, normaliser)
    tokens = replace(settings.tokens, hop=base.token_seconds)
    return EncodedFrontEnd(tokens, base, settings.adaptation.part(base))


def count_variations(settings: AudioSettings, front_end: EncodedFrontEnd, clips: int) -> int:
    """Returns how many variations of each training clip are computed.

    Args:
        settings: Settings of the run.
        front_end: Front-end of the run.
        clips: Number of training clips.
    """
    assert isinstance(settings.model, PretrainedConfig)
    if settings.model.variations is not None:
        return settings.model.variations
    if front_end.base.log_mel is None or front_end.part.kind != "statistics":
        return 0
    return max(0, min(_MOST_VARIATIONS, _ENOUGH_CLIPS // clips - 1))


def build_adapted(
    settings: AudioSettings, classes: int, base: PretrainedEncoder | None = None
) -> AdaptedClassifier:
    """Builds the classifier on a pretrained encoder before training.

    Args:
        settings: Settings of the run.
        classes: Number of classes.
        base: From :func:`open_encoder`; a copy of it is adapted. None loads it.

    Raises:
        ConfigError: If the encoder cannot be loaded, or cannot be adapted in this way.
    """
    base = open_encoder(settings) if base is None else copy.deepcopy(base)
    assert base is not None
    set_seed(settings.seed)
    return AdaptedClassifier(base, settings.adaptation, classes)


def pretrained_defaults(overrides: Sequence[Override]) -> list[str]:
    """Returns the settings that ``model=pretrained`` changes, unless they are given.

    Clips are varied before the encoder's outputs are cached; ``adapt=full`` caches the encoder's
    input and augments it like other recipes. Clips that adapt the encoder are mixed. Few steps are
    needed. The loss has no label smoothing, as in the fit of the head; with smoothing, the optimum
    would differ.

    Args:
        overrides: Overrides of the command line.
    """
    given: dict[str, Any] = {o.key_or_group: o.value() for o in overrides}
    if given.get("model") != "pretrained":
        return []
    way = str(given.get("adapt") or "probe")
    rate, share = _RATES.get(way, _OTHER_RATES)
    whole = way == "full" and given.get("model.adapt_layers") is None
    changed = {"augment.crop": 0, "augment.mixstyle": 0, "augment.mixup_power": "false",
               "segments.seconds": "null", "trainer.min_steps": 0, "trainer.workers": 0,
               "trainer.ema": 0.98, "trainer.label_smoothing": 0, "optim.lr": rate,
               "model.head_rate": share}  # fmt: skip
    if not whole:
        changed["augment"] = "none"
        varied = way == "probe" or given.get("model.variations")
        if varied and given.get("augment") is None:
            changed |= {f"augment.{name}": value for name, value in _VARIED.items()}
    if way != "probe" and given.get("augment") is None:
        changed |= {"augment.mixup": 0.5, "augment.cutmix": 0.0 if whole else 0.3}
    if given.get("preset") is None:
        changed |= {"trainer.epochs": 16 if whole else 8, "trainer.batch_size": 16}
    return [f"{name}={value}" for name, value in changed.items() if name not in given]
