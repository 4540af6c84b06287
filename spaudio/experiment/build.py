"""Builds the models of runs before training; the seed decides their parameters."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from accelerate.utils import set_seed

from spaudio.errors import ConfigError, first_line
from spaudio.experiment.encoders import open_encoder
from spaudio.experiment.settings import AudioSettings, TextSettings
from spaudio.model.classifier import Classifier
from spaudio.model.language import LanguageModel
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder
from spaudio.model.stem import ConvStem
from spaudio.text.corpus import ALPHABET
from spaudio.tokens.waveform_filterbank import WaveformFilterbank


@contextmanager
def named_sizes() -> Iterator[None]:
    """Turns a failure to build a model into an error that names the settings of its sizes.

    Raises:
        ConfigError: If memory runs out, or a tensor cannot have such a size.
    """
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError) as error:
        raise ConfigError(
            f"the model cannot be built ({first_line(error)}); give smaller sizes of model, filter "
            "or tokens"
        ) from error


@named_sizes()
def build_classifier(settings: AudioSettings, classes: int) -> Classifier:
    """Builds the classifier of a run before training; the seed decides its parameters.

    Args:
        settings: Settings of the run.
        classes: Number of classes.

    Raises:
        ConfigError: If an option of the filter is unknown or out of range.
    """
    set_seed(settings.seed)
    tokens = settings.tokens
    stem = None
    if tokens.stem == "conv":
        stem = ConvStem(tokens.bands, tokens.stack, tokens.stem_channels)
    return Classifier(
        tokens.features,
        classes,
        settings.model,
        settings.filter_options,
        settings.model.pooling,
        WaveformFilterbank(tokens) if tokens.learned else None,
        stem,
    )


@named_sizes()
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
    own = open_encoder(settings) if base is None else copy.deepcopy(base)
    assert own is not None
    # Only now is the length of a token known.
    filters = settings.filter.with_kernel_size(own.token_seconds)
    adaptation = replace(settings, filter=filters).adaptation
    set_seed(settings.seed)
    model = AdaptedClassifier(own, adaptation, classes)
    given = {} if base is None else dict(base.named_parameters())
    for name, parameter in own.named_parameters():
        frozen = given.get(name.replace(".base_layer.", "."))  # the name in a layer with LoRA
        if frozen is not None and not parameter.requires_grad:
            parameter.data = frozen.data  # shared, instead of a copy in memory
    return model


@named_sizes()
def build_language_model(settings: TextSettings) -> LanguageModel:
    """Builds the model of a text run before training; the seed decides its parameters.

    Raises:
        ConfigError: If a setting is out of range.
    """
    set_seed(settings.seed)
    return LanguageModel(len(ALPHABET), settings.model, settings.filter_options)
