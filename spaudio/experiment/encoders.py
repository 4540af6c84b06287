"""Pretrained encoders as models of a run: their front-end, their classifier, their defaults."""

from collections.abc import Sequence
from typing import Any

from accelerate.utils import set_seed
from hydra.core.override_parser.types import Override

from spaudio.experiment.settings import AudioSettings, PretrainedConfig
from spaudio.model.adapted import AdaptedClassifier
from spaudio.model.encoded import EncodedFrontEnd
from spaudio.model.pretrained import load_base
from spaudio.tokens.front_end import FrontEnd, make_front_end
from spaudio.tokens.normalise import Normaliser

# Peak learning rates, and the share of it that the head has, which starts from a fitted probe.
_RATES = {"full": (5e-5, 1.0)}
_OTHER_RATES = (1e-3, 0.1)


def open_front_end(settings: AudioSettings, normaliser: Normaliser | None = None) -> FrontEnd:
    """Builds the front-end of a run.

    Args:
        settings: Of the run.
        normaliser: Fitted on the training split; None if only frames are needed. That of a
            pretrained encoder is fixed.

    Raises:
        ConfigError: If the pretrained encoder cannot be loaded, or not be adapted so.
    """
    if not isinstance(settings.model, PretrainedConfig):
        return make_front_end(settings.tokens, normaliser)
    base = load_base(str(settings.model.source))
    return EncodedFrontEnd(settings.tokens, base, settings.adaptation.part(base))


def build_adapted(settings: AudioSettings, classes: int) -> AdaptedClassifier:
    """Builds the classifier on a pretrained encoder before training.

    Args:
        settings: Of the run.
        classes: Number of classes.

    Raises:
        ConfigError: If the encoder cannot be loaded, or not be adapted so.
    """
    assert isinstance(settings.model, PretrainedConfig)
    set_seed(settings.seed)
    return AdaptedClassifier(load_base(str(settings.model.source)), settings.adaptation, classes)


def pretrained_defaults(overrides: Sequence[Override]) -> list[str]:
    """Returns the settings that ``model=pretrained`` changes, unless they are given.

    Augmentation acts on log-mel frames, so there is none; few steps are needed.

    Args:
        overrides: Of the command line.
    """
    given: dict[str, Any] = {o.key_or_group: o.value() for o in overrides}
    if given.get("model") != "pretrained":
        return []
    rate, share = _RATES.get(str(given.get("adapt")), _OTHER_RATES)
    changed = {"augment": "none", "segments.seconds": "null", "trainer.min_steps": 0,
               "trainer.workers": 0, "trainer.ema": 0.98, "optim.lr": rate,
               "model.head_rate": share}  # fmt: skip
    if given.get("preset") is None:
        changed |= {"trainer.epochs": 8, "trainer.batch_size": 16}
    return [f"{name}={value}" for name, value in changed.items() if name not in given]
