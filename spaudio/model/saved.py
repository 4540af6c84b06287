"""Saves a classifier to a folder or the Hugging Face Hub and loads it: safetensors, JSON config.

The config holds plain settings, which the classes of this package check; no class is imported by
its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from torch import nn
from typing_extensions import override

from spaudio.errors import CheckpointError, ConfigError
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.stem import ConvStem
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.waveform import WaveformFrontEnd

try:
    import safetensors.torch  # noqa: F401  (the mixin saves with it)
    from huggingface_hub import PyTorchModelHubMixin

    from spaudio.filters.hub import misfit
except ImportError as error:
    raise ImportError(
        "saving and loading models needs huggingface_hub and safetensors: "
        "pip install 'spaudio[hub]'"
    ) from error


class SavedClassifier(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="spaudio",
    paper_url="https://arxiv.org/abs/2406.10254",
    pipeline_tag="audio-classification",
    tags=["filterbank"],
):
    """A classifier as it is saved; ``model`` is the classifier itself.

    The mixin provides ``save_pretrained(folder)``.

    Args:
        features: Width of the tokens that are projected.
        labels: Class names, in the order of the outputs.
        encoder: Fields of :class:`spaudio.model.encoder.EncoderConfig`.
        filter_options: ``name`` and options of the filter after each layer.
        pooling: ``"mean"`` or ``"attention"``.
        tokens: Of a model that takes waveforms, the fields of its
            :class:`spaudio.tokens.config.TokenConfig`.
        stem: Arguments of its :class:`spaudio.model.stem.ConvStem`, or None.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        features: int,
        labels: list[str],
        encoder: Mapping[str, Any],
        filter_options: Mapping[str, Any],
        pooling: str = "mean",
        tokens: Mapping[str, Any] | None = None,
        stem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        try:
            shape = EncoderConfig(**encoder)
        except TypeError as error:
            raise ConfigError(f"model: {error}") from error
        front_end = None if tokens is None else WaveformFrontEnd(TokenConfig.from_dict(tokens))
        self.labels = list(labels)
        self.model = Classifier(
            features,
            len(labels),
            shape,
            filter_options,
            pooling,
            front_end,
            None if stem is None else ConvStem(**stem),
        )

    @classmethod
    @override
    def from_pretrained(cls, source: Any, **options: Any) -> Self:  # type: ignore[override]
        """Loads a classifier with the mixin.

        Raises:
            ConfigError: If a setting is unknown or out of range.
            CheckpointError: If the weights do not fit the settings.
        """
        try:
            loaded: Self = super().from_pretrained(source, **options)
        except RuntimeError as error:
            raise CheckpointError(misfit(source, error)) from error
        return loaded

    @classmethod
    def of(cls, model: Classifier, labels: list[str]) -> SavedClassifier:
        """Copies a classifier.

        Args:
            model: The classifier.
            labels: Class names, in the order of its outputs.

        Raises:
            ConfigError: If there are not as many labels as outputs.
        """
        if len(labels) != model.classes:
            raise ConfigError(f"the model has {model.classes} outputs; got {len(labels)} labels")
        options = dict(model.filter_options)
        saved = cls(
            model.features,
            labels,
            asdict(model.encoder.config),
            options,
            model.pooling_kind,
            None if model.front_end is None else asdict(model.front_end.config),
            None if model.stem is None else model.stem.config,
        )
        saved.model.load_state_dict(model.state_dict())
        return saved
