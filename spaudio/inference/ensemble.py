"""Several models of the same classes, whose probabilities are combined."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import torch

from spaudio.errors import ConfigError
from spaudio.inference.audio_model import AudioModel, Audios
from spaudio.inference.predict import Predictor
from spaudio.inference.predict_files import predict_files
from spaudio.inference.sounds import Audio
from spaudio.report.predictions import Prediction
from spaudio.report.probabilities import check_classes, combine, in_order


class Ensemble:
    """Several models whose logits are averaged (:func:`spaudio.report.probabilities.combine`).

    Models that differ help each other most, such as one trained from scratch and a pretrained
    encoder. Each model reads a sound at its own sample rate.

        both = Ensemble([load("runs/folder/A"), load("runs/folder/B")])
        both.predict("a.wav").top(3)

    Args:
        models: At least two models of the same classes.

    Raises:
        ConfigError: If there are fewer, or their classes differ.
    """

    def __init__(self, models: Sequence[AudioModel]) -> None:
        self.models = list(models)
        check_models(self.models)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities: those of the first model."""
        return self.models[0].classes

    @overload
    def predict(self, audio: Audio, sample_rate: int | None = None) -> Prediction: ...
    @overload
    def predict(
        self, audio: Audios, sample_rate: int | None = None, *, align: bool = False
    ) -> list[Prediction]: ...
    def predict(
        self, audio: Audio | Audios, sample_rate: int | None = None, *, align: bool = False
    ) -> Prediction | list[Prediction]:
        """Classifies a sound, or several; arguments and errors of `AudioModel.predict`."""
        if isinstance(audio, list | tuple):
            found = [model.predict(audio, sample_rate, align=align) for model in self.models]
            return [combine_predictions(self.models, each) for each in zip(*found, strict=True)]
        if align:
            raise ConfigError("align=True takes a list of sounds; got a single one")
        each = [model.predict(audio, sample_rate) for model in self.models]
        return combine_predictions(self.models, each)


def check_models(models: Sequence[Predictor]) -> None:
    """Checks that models can be combined.

    Raises:
        ConfigError: If there are fewer than two, their classes differ, or clips have one label for
            some and several for others.
    """
    if len(models) < 2:
        raise ConfigError(f"an ensemble needs at least two models; got {len(models)}")
    first, *others = models
    for other in others:
        check_classes(first.inputs.classes, other.inputs.classes)
        if other.inputs.multi_label != first.inputs.multi_label:
            one, several = sorted([first, other], key=lambda model: model.inputs.multi_label)
            raise ConfigError(
                f"{one.run} gives each clip one label, {several.run} several; combine models of "
                "the same kind"
            )


def combine_predictions(
    models: Sequence[Predictor], predictions: Sequence[Prediction]
) -> Prediction:
    """Combines the predictions of several models for one sound.

    Args:
        models: The models.
        predictions: One per model.

    Returns:
        The prediction of the first model, with the combined probabilities.
    """
    first = predictions[0]
    values = [
        in_order(torch.from_numpy(one.probabilities)[None], one.classes, first.classes)
        for one in predictions
    ]
    combined = combine(torch.stack(values), multi_label=models[0].inputs.multi_label)
    return replace(first, probabilities=combined[0].numpy())


def predict_files_together(
    models: Sequence[Predictor], files: Sequence[Path], align: str | None = None
) -> tuple[list[Prediction], list[tuple[Path, str]]]:
    """Predicts files by one model or several; see :func:`predict_files`.

    A file that one of the models cannot use is listed once, with the first reason.
    """
    answers = [predict_files(model, files, align) for model in models]
    if len(models) == 1:
        return answers[0]
    by_file = [{one.path: one for one in found} for found, _ in answers]
    reasons = {path: why for _, bad in reversed(answers) for path, why in bad}
    combined = [
        combine_predictions(models, [found[path] for found in by_file])
        for path in files
        if path not in reasons
    ]
    return combined, [(path, reasons[path]) for path in files if path in reasons]
