"""Python interface of a trained model: predictions, embeddings, events and streams."""

import os
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from spaudio.errors import ConfigError
from spaudio.inference.detect import event_finder
from spaudio.inference.events import Event
from spaudio.inference.explain import Explanation, explain_sound
from spaudio.inference.live import Stream, open_stream
from spaudio.inference.predict import Predictor, finite
from spaudio.inference.predictions import Prediction
from spaudio.inference.saved import fetch, save_pretrained
from spaudio.inference.sounds import Audio, named_sound
from spaudio.model.classifier import count_parameters

Audios = list[Audio] | list[Path] | list[str] | tuple[Audio, ...]


def load(
    source: str | os.PathLike[str],
    *,
    window: float | None = None,
    base: str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> "AudioModel":
    """Loads the best model of a run, or a model that :meth:`AudioModel.save_pretrained` saved.

    Args:
        source: Folder of a run or a saved model, or a Hugging Face Hub id such as
            ``"owner/name"``.
        window: Seconds; longer sounds are cut into windows of this length and probabilities are
            averaged. None uses the length of the longest clip in the run's data;
            `detect` and `stream` then use the median length of its training clips.
        base: Folder or id of the pretrained encoder, if it has moved since training; None uses the
            one from training.
        device: A torch device such as ``"cpu"`` or ``"cuda:1"``; None is a CUDA GPU if there is
            one, else the CPU.

    Returns:
        The model, in evaluation mode and float32, on the device.

    Raises:
        CheckpointError: If there is no such folder or id, or the run cannot be used.
        ConfigError: If the window is out of range, the pretrained encoder cannot be loaded, or
            there is no such device.
    """
    return AudioModel(fetch(source), window, None if base is None else os.fspath(base), device)


class AudioModel(Predictor):
    """A trained classifier of sounds, with its front-end and normalisation.

    A sound is a file of any format, rate and number of channels, or a mono waveform (samples,),
    floating-point with full scale at 1.0, with its ``sample_rate`` in Hz. A waveform may have a
    second axis of length 1. `predict` and `embed` also take lists of sounds. Sounds are checked,
    resampled and classified as in the evaluation after training. See :func:`load`.
    """

    def __repr__(self) -> str:
        names = ", ".join([*self.classes[:5], *["..."] * (len(self.classes) > 5)])
        return (
            f"<AudioModel of {len(self.classes)} classes ({names}): {self.sample_rate:,} Hz, "
            f"windows of {self.window_seconds:.4g} s, {count_parameters(self.model):,} "
            "parameters>"
        )

    @overload
    def predict(self, audio: Audio, sample_rate: int | None = None) -> Prediction: ...
    @overload
    def predict(
        self, audio: Audios, sample_rate: int | None = None, *, align: bool = False
    ) -> list[Prediction]: ...
    def predict(
        self, audio: Audio | Audios, sample_rate: int | None = None, *, align: bool = False
    ) -> Prediction | list[Prediction]:
        """Classifies a sound, or several.

        Args:
            audio: A file or waveform, or a list of them.
            sample_rate: Rate of the waveforms, in Hz.
            align: The sounds of a list are from one speaker, place or device and cover the classes
                in about the proportions of the training clips; they are aligned with these
                (`spaudio.training.alignment`).

        Returns:
            A prediction with ``label``, ``confidence``, ``probabilities`` and ``top(k)``; for a
            list of sounds, a list of predictions.

        Raises:
            AudioError: If a sound cannot be used.
            CheckpointError: If sounds are to be aligned by a run that is not finished.
            ConfigError: If the rate of a waveform is missing or out of range, or ``align`` is given
                for a single sound, or for a model with several labels per clip.
        """
        if not isinstance(audio, list | tuple):
            if align:
                raise ConfigError("align=True takes a list of sounds; got a single one")
            return self(audio, sample_rate)
        if not align:
            return [self.predict(one, sample_rate) for one in audio]
        self.alignment()  # refused before any sound is read
        sounds = [self.embed_windows(one, sample_rate) for one in audio]
        return self.classify_aligned(sounds) if sounds else []

    def embed(self, audio: Audio | Audios, sample_rate: int | None = None) -> NDArray[np.float32]:
        """Returns the embedding that the last layer classifies; arguments and errors of `predict`.

        Returns:
            (width,); for a list, which must not be empty, (sounds, width). For a sound that is cut
            into windows, the mean over windows, weighted as those of `predict`.
        """
        if isinstance(audio, list | tuple):
            if not audio:
                raise ConfigError("embed() got an empty list; give at least one sound")
            return np.stack([self.embed(one, sample_rate) for one in audio])
        with named_sound(audio):
            mean = self._mean_over_windows(self.read(audio, sample_rate), self.embeddings)[0]
        return finite(mean.float().numpy())

    def detect(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        hop: float | None = None,
        threshold: float = 0.5,
    ) -> list[Event]:
        """Finds the events in a recording of any length; see `spaudio.inference.detect`.

        A window, ``load(..., window=)`` or as long as the median training clip, slides over the
        recording. An event is a sequence of adjacent windows in which a class reaches the
        threshold.

        Args:
            audio: A file or waveform.
            sample_rate: Rate of a waveform, in Hz.
            hop: Seconds from one window to the next; None is half the window.
            threshold: Lowest probability at which a class counts as present.

        Returns:
            Events sorted by ``start``, with ``start`` and ``end`` in seconds, ``label`` and
            ``confidence``.

        Raises:
            AudioError: If the sound cannot be used.
            ConfigError: If the rate is missing, or hop or threshold is out of range.
        """
        find = event_finder(self, hop, (threshold,))
        with named_sound(audio):
            return find(self.read(audio, sample_rate, silent_ok=True))[0][0]

    def explain(
        self, audio: Audio, sample_rate: int | None = None, label: str | None = None
    ) -> Explanation:
        """Measures which seconds and bands decided the class; see `spaudio.inference.explain`.

        Args:
            audio: A file or waveform.
            sample_rate: Rate of a waveform, in Hz.
            label: Class to explain; None takes the most probable one.

        Returns:
            An explanation with ``label``, ``confidence``, ``intervals`` (start and end in seconds,
            and the drop in the log-odds of the class without that interval) and ``bands`` (the same
            in Hz), the most important first. ``draw(path, title)`` draws it.

        Raises:
            AudioError: If the sound cannot be used.
            ConfigError: If the rate is missing, or the run has no such class.
        """
        with named_sound(audio):
            return explain_sound(self, self.read(audio, sample_rate), label)

    def stream(self, window: float | None = None, hop: float | None = None) -> Stream:
        """Makes a stream, which turns blocks of samples into predictions as they arrive.

        ``stream.how`` says whether predictions are computed incrementally, by a causal model, or
        over overlapping windows, ``stream.first`` after how many seconds the first one comes, and
        ``stream.delay`` how late the others are, in seconds:

            stream = model.stream()
            for heard in stream(blocks, sample_rate):
                print(heard.end, heard.label, heard.confidence)

        Blocks are checked like the arrays of `predict`. Without a ``sample_rate``, they are assumed
        to be at ``model.sample_rate``.

        Args:
            window: Maximum seconds of sound per prediction; None is that given to `load`, or the
                median length of the training clips.
            hop: Seconds from one prediction to the next; None is 0.25, or half the window if
                that is less.

        Returns:
            The stream. Called with blocks of samples, it yields predictions.

        Raises:
            ConfigError: If window or hop is out of range.
        """
        return open_stream(self, window, hop)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Saves the model as a folder that can be published; see :mod:`spaudio.inference.saved`.

        Args:
            folder: Folder to create; must not exist.

        Raises:
            CheckpointError: If the run is not finished.
            ConfigError: If the folder exists, or huggingface_hub is missing.
        """
        save_pretrained(self.run, Path(folder))
