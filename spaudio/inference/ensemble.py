"""Several models of the same classes that decide together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from spaudio.audio.decode import Waveform, resample
from spaudio.errors import ConfigError
from spaudio.inference.audio_model import AudioModel, Audios
from spaudio.inference.detect import event_finder
from spaudio.inference.ensemble_weights import check_classes, choose_weights, combine_models
from spaudio.inference.events import Event
from spaudio.inference.predict import Predictor
from spaudio.inference.predict_files import predict_files
from spaudio.inference.predictions import Prediction
from spaudio.inference.sounds import ARRAY, Audio, named_sound, path_of
from spaudio.report.probabilities import ClipProbabilities, read_probabilities
from spaudio.report.run_files import PROBABILITIES


class Ensemble:
    """Several models that decide together, by a weighted sum of their logits.

    Models that differ help each other most, such as one trained from scratch and a pretrained
    encoder. Each model reads a sound at its own sample rate.

        both = Ensemble([load("runs/folder/A"), load("runs/folder/B")])
        both.predict("a.wav").top(3)

    Args:
        models: At least two models of the same classes.
        weights: One per model. None fits them on the validation clips of the runs
            (`spaudio.inference.ensemble_weights`), or takes equal ones, of sum 1, if that is not
            possible: for saved models, and for runs that were trained on their validation split or
            have different ones.

    Attributes:
        models: The models.
        weights: Their weights.
        source: Where the weights come from, as a sentence.

    Raises:
        ConfigError: If there are fewer models, their classes differ, or a weight is missing or
            negative.
        DataError: If the recorded probabilities of a run are damaged.
    """

    def __init__(
        self, models: Sequence[AudioModel], weights: Sequence[float] | None = None
    ) -> None:
        self.models = list(models)
        check_models(self.models)
        if weights is None:
            self.weights, self.source = weights_of(self.models)
            return
        in_range = all(0 <= one < math.inf for one in weights) and any(weights)
        if len(weights) != len(models) or not in_range:
            raise ConfigError(
                f"weights={list(weights)}; expected {len(models)} numbers that are not negative, "
                "and at least one above 0"
            )
        self.weights, self.source = list(weights), "weights were given"

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
            return decide_together(self.models, self.weights, found)
        if align:
            raise ConfigError("align=True takes a list of sounds; got a single one")
        return self.predict([audio], sample_rate)[0]

    def detect(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        hop: float | None = None,
        threshold: float = 0.5,
    ) -> list[Event]:
        """Finds events; as `AudioModel.detect`, in windows of the first model."""
        find = event_finder(self, hop, (threshold,))
        with named_sound(audio):
            return find(self.read(audio, sample_rate, silent_ok=True))[0][0]

    def read(
        self, audio: Audio, sample_rate: int | None = None, *, silent_ok: bool = False
    ) -> Iterable[Waveform]:
        """Reads a sound at the highest rate of the models; see `Predictor.read`."""
        reader = max(self.models, key=lambda model: model.sample_rate)
        pieces = reader.read(audio, sample_rate, silent_ok=silent_ok)  # checks the rate
        self.warn_of_rate(audio, sample_rate if path_of(audio) == ARRAY else None)
        return pieces

    def warn_of_rate(self, audio: Audio, sample_rate: int | None = None) -> None:
        """Warns of a rate that is too low for one of the models; see `Predictor.warn_of_rate`."""
        for model in self.models:
            model.warn_of_rate(audio, sample_rate)

    @property
    def sample_rate(self) -> int:
        """The highest sample rate of the models, in Hz."""
        return max(model.sample_rate for model in self.models)

    @property
    def event_seconds(self) -> float:
        """Length of the windows of :meth:`detect`, in seconds: that of the first model."""
        return self.models[0].event_seconds

    @property
    def frame_seconds(self) -> float:
        """The shortest window that all models take, in seconds."""
        return max(model.frame_seconds for model in self.models)

    def check_window(self, seconds: float) -> None:
        """Checks that all models take a sound of this length at once.

        Raises:
            ConfigError: If one does not.
        """
        for model in self.models:
            model.check_window(seconds)

    def probabilities(self, waveforms: Sequence[Waveform]) -> Tensor:
        """Classifies waveforms without cutting them, as `Predictor.probabilities`.

        Args:
            waveforms: Each (samples,), mono, at :attr:`sample_rate`.

        Returns:
            (waveforms, classes), on the CPU.
        """
        rate, names = self.sample_rate, [""] * len(waveforms)
        found = []
        for model in self.models:
            heard = [resample(one, rate, model.sample_rate, ARRAY) for one in waveforms]
            values = model.probabilities(heard)
            found.append(ClipProbabilities(names, names, model.classes, values))
        multi_label = self.models[0].inputs.multi_label
        return combine_models(found, self.weights, multi_label=multi_label).values


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


def weights_of(models: Sequence[Predictor]) -> tuple[list[float], str]:
    """Fits the weights of models on the validation clips of their runs, if they have the same.

    Returns:
        One weight per model, and where they come from, as a sentence.

    Raises:
        DataError: If the recorded probabilities of a run are damaged.
    """
    files = [model.run / PROBABILITIES for model in models]
    recorded = [read_probabilities(file) if file.is_file() else {} for file in files]
    return choose_weights(recorded, multi_label=models[0].inputs.multi_label)


def predict_by_each(
    models: Sequence[Predictor], files: Sequence[Path], align: str | None = None
) -> tuple[list[list[Prediction]], list[tuple[Path, str]]]:
    """Predicts files by each of several models; see :func:`predict_files`.

    Returns:
        The predictions of each model for the files that all of them can use; and the others, each
        once, with the first reason.
    """
    answers = [predict_files(model, files, align) for model in models]
    reasons = {path: why for _, bad in reversed(answers) for path, why in bad}
    used = [[one for one in found if one.path not in reasons] for found, _ in answers]
    return used, [(path, reasons[path]) for path in files if path in reasons]


def decide_together(
    models: Sequence[Predictor],
    weights: Sequence[float],
    predictions: Sequence[Sequence[Prediction]],
) -> list[Prediction]:
    """Combines the predictions of several models for the same sounds.

    Args:
        models: The models.
        weights: One per model.
        predictions: Those of each model.

    Returns:
        The predictions of the first model, with the combined probabilities.
    """
    first = predictions[0]
    if not first:
        return []
    labels = [""] * len(first)
    given = [as_clips(each, labels) for each in predictions]
    found = combine_models(given, weights, multi_label=models[0].inputs.multi_label)
    rows = zip(first, found.values, strict=True)
    return [replace(one, probabilities=row.numpy()) for one, row in rows]


def as_clips(predictions: Sequence[Prediction], labels: Sequence[str]) -> ClipProbabilities:
    """Returns the predictions of a model for at least one labelled sound."""
    values = torch.stack([torch.from_numpy(one.probabilities) for one in predictions])
    paths = [str(one.path) for one in predictions]
    return ClipProbabilities(paths, labels, predictions[0].classes, values)
