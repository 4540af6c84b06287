"""Applies a finished run's model to other audio of any format, rate, channels and length."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaudio.audio.decode import Waveform, check_rate, read_rate
from spaudio.errors import CheckpointError, ConfigError, some
from spaudio.experiment.encoders import open_encoder, open_front_end
from spaudio.experiment.inputs import INPUTS, Inputs
from spaudio.experiment.load import load_classifier, weights_folder
from spaudio.experiment.run_folder import read_run_settings
from spaudio.experiment.settings import AudioSettings, PretrainedConfig, Settings
from spaudio.inference.predictions import Prediction
from spaudio.inference.sound_windows import SoundWindows
from spaudio.inference.sounds import ARRAY, Audio, named_sound, path_of, read_sound
from spaudio.io.messages import warn
from spaudio.model.classifier import Classifier
from spaudio.model.pretrained.encoder_source import is_missing
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder
from spaudio.tokens.batch import Example, collate
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.normalise import BandNormaliser
from spaudio.training.alignment import Alignment
from spaudio.training.checkpoint import load_weights
from spaudio.training.temperature import class_probabilities, tempered


@dataclass(frozen=True)
class EmbeddedSound:
    """The embeddings of a sound.

    Args:
        path: File name in the prediction.
        samples: Length of the sound, at the model's sample rate.
        windows: (windows, width), on the CPU.
        weights: (windows,), of each window in the mean over the sound; their sum is 1.
    """

    path: Path
    samples: int
    windows: Tensor
    weights: Tensor


class Predictor:
    """A run's best model with its front-end and normalisation, in float32.

    Args:
        run: The run's folder.
        window: Seconds; longer files are cut into windows of this length, and events are sought in
            such windows. None uses the length of the longest clip in the run's data, so that no
            clip of its data is cut; for events, the median length of its training clips.
        base: Folder or Hub id of the run's pretrained encoder, if it has moved since training.
        device: A torch device such as ``"cpu"`` or ``"cuda:1"``; None is a CUDA GPU if there is
            one, else the CPU.

    Raises:
        CheckpointError: If the run cannot be used.
        ConfigError: If the window is infinite, shorter than a frame's hop or longer than the model
            takes, the pretrained encoder is not found, ``base`` is given to a run without one, or
            there is no such device.
    """

    def __init__(
        self,
        run: Path,
        window: float | None = None,
        base: str | None = None,
        device: str | None = None,
    ) -> None:
        self.run = run
        self.device = _find_device(device)
        settings = read_run_settings(run)
        _check_base(run, settings, base)
        encoder = open_encoder(settings, base)
        self.model = load_classifier(run, encoder)
        assert isinstance(settings, AudioSettings)
        self.inputs = Inputs.load(run)
        tokens = settings.tokens
        _check_inputs(run, self.inputs, tokens.bands, self.model.classes)
        self.front_end = open_front_end(settings, self.inputs.normaliser, encoder)
        hop = self.frame_seconds
        longest = max(self.inputs.longest_seconds, hop)  # a clip may be shorter than a hop
        self.window_seconds = longest if window is None else window
        self.most_seconds = self._most_seconds(tokens, encoder)
        self.event_seconds = window or min(max(self.inputs.typical_seconds, hop), self.most_seconds)
        if not hop <= self.window_seconds < math.inf:
            raise ConfigError(
                f"window={window} s; expected a number of seconds from {hop:g}, one hop of the "
                "front-end"
            )
        if window is not None:
            self.check_window(window)
        self.sample_rate = tokens.sample_rate
        self._told_of_rate = False
        segment = settings.segments.seconds
        # If segments are longer than all clips, none was cut, as without segments.
        is_cut = segment is not None and self.inputs.longest_seconds >= segment
        segments = settings.segments if is_cut else None
        self.windows = SoundWindows(self.window_seconds, self.front_end.config, segments)
        self.model.to(self.device)

    def _most_seconds(self, tokens: TokenConfig, base: PretrainedEncoder | None) -> float:
        """Returns the longest sound that the model can take at once."""
        if base is not None:
            return base.max_seconds
        assert isinstance(self.model, Classifier)
        encoder = self.model.encoder
        if encoder.learned is None:
            return math.inf
        # Frames are centred: another token may begin where the sound ends.
        return (encoder.config.max_tokens - 1) * tokens.token_seconds

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.inputs.classes

    @property
    def frame_seconds(self) -> float:
        """Hop of the front-end: the shortest window, and the shortest hop between windows."""
        return self.front_end.config.frame_seconds

    def check_window(self, seconds: float) -> None:
        """Checks that the model can take a sound of this length at once.

        Raises:
            ConfigError: If it cannot.
        """
        if seconds > self.most_seconds:
            raise ConfigError(
                f"window={seconds:g} s; this model takes at most {self.most_seconds:g} s"
            )

    def __call__(self, audio: Audio, sample_rate: int | None = None) -> Prediction:
        """Predicts a sound of any length.

        Args:
            audio: A file, or a mono waveform (samples,).
            sample_rate: Rate of a waveform, in Hz.

        Raises:
            AudioError: If it cannot be used.
            CheckpointError: If the model gives no finite probabilities.
            ConfigError: If the rate of a waveform is missing or out of range.
        """
        with named_sound(audio):
            mean, samples, windows = self._mean_over_windows(
                self.read(audio, sample_rate), self.raw_probabilities
            )
        return self._prediction(path_of(audio), mean, samples, windows)

    def read(
        self, audio: Audio, sample_rate: int | None = None, *, silent_ok: bool = False
    ) -> Iterable[Waveform]:
        """Reads a sound at the model's rate; see :func:`read_sound`.

        Silence can always be used if it was a clip of the run's data.
        """
        if path_of(audio) != ARRAY:
            sample_rate = None  # that of arrays
        elif sample_rate is not None:
            check_rate(sample_rate)
        self.warn_of_rate(audio, sample_rate)
        silent_ok = silent_ok or self.inputs.silent_ok
        return read_sound(audio, sample_rate, self.sample_rate, silent_ok=silent_ok)

    def warn_of_rate(self, audio: Audio, sample_rate: int | None = None) -> None:
        """Warns of the first sound whose rate is too low for bands that all training clips had.

        Args:
            audio: A file, a waveform, or the name of what is heard.
            sample_rate: Rate in Hz; None is that of the file.

        Raises:
            AudioError: If the file cannot be opened.
        """
        if self._told_of_rate:
            return
        needed = min(self.inputs.lowest_rate, 2 * self.front_end.config.top)
        path = path_of(audio)
        rate = read_rate(path) if sample_rate is None and path != ARRAY else sample_rate
        if rate is not None and rate < needed:
            self._told_of_rate = True
            warn(
                f"warning: {path} has a sample rate of {rate:,} Hz. The model also reads the "
                f"frequencies from {rate / 2:,.0f} to {needed / 2:,.0f} Hz, which are empty there "
                "but not in its training clips, so it may be less accurate. This warning is shown "
                "once; give recordings of a higher rate, or train on clips of this rate"
            )

    def embed_windows(self, audio: Audio, sample_rate: int | None = None) -> EmbeddedSound:
        """Computes the embedding of each window; arguments and errors of :func:`read_sound`."""
        with named_sound(audio):
            counted = _Counted(self.read(audio, sample_rate))
            found, parts = zip(*self._over_windows(counted, self.embeddings), strict=True)
        weights = torch.cat(parts)
        weights /= weights.sum()
        return EmbeddedSound(path_of(audio), counted.samples, torch.cat(found), weights)

    @torch.inference_mode()
    def classify_aligned(self, sounds: Sequence[EmbeddedSound]) -> list[Prediction]:
        """Predicts sounds of one speaker, place or device; see `spaudio.training.alignment`.

        Args:
            sounds: At least one, from :meth:`embed_windows`; together they should cover the classes
                in about the proportions of the training clips.

        Raises:
            CheckpointError: If the model gives no finite probabilities, or as :meth:`alignment`.
            ConfigError: As :meth:`alignment`.
        """
        alignment, width = self.alignment(), sounds[0].windows.shape[1]
        if len(alignment.mean) != width:
            raise CheckpointError(
                f"{self.run / INPUTS} has statistics of embeddings of {len(alignment.mean)} "
                f"values, but the model's have {width}; run the recipe again"
            )
        counts = torch.tensor([len(sound.windows) for sound in sounds])
        owners = torch.arange(len(sounds)).repeat_interleave(counts)
        aligned = alignment(torch.cat([sound.windows for sound in sounds]), owners)
        # Double precision as in :meth:`raw_probabilities`.
        logits = self.model.classify(aligned.to(self.device)).cpu().double()
        parts = torch.split(logits.softmax(dim=1), counts.tolist())
        return [
            self._prediction(sound.path, sound.weights @ chances, sound.samples, len(chances))
            for sound, chances in zip(sounds, parts, strict=True)
        ]

    def alignment(self) -> Alignment:
        """Returns what aligns embeddings with those of the training clips.

        Raises:
            CheckpointError: If the run is not finished.
            ConfigError: If a clip of the run may have several classes.
        """
        if self.inputs.multi_label:
            raise ConfigError(f"align: clips of {self.run} have several classes; leave it out")
        if self.inputs.alignment is not None:
            return self.inputs.alignment
        raise CheckpointError(
            f"align: {self.run / INPUTS} holds no statistics of embeddings, because the run is not "
            f"finished; continue it with resume={self.run}"
        )

    def _prediction(self, path: Path, mean: Tensor, samples: int, windows: int) -> Prediction:
        """Applies the temperature, which was fitted to means over segments."""
        found = finite(self.tempered(mean[None])[0].float().numpy())
        return Prediction(path, samples / self.sample_rate, windows, found, self.inputs.classes)

    def _mean_over_windows(
        self, pieces: Iterable[Waveform], compute: Callable[[Sequence[Waveform]], Tensor]
    ) -> tuple[Tensor, int, int]:
        """Returns the mean of ``compute`` over windows, and the numbers of samples and windows."""
        counted, windows, total, weight = _Counted(pieces), 0, torch.zeros(()), 0.0
        for found, weights in self._over_windows(counted, compute):
            total = total + weights @ found.double()
            weight += float(weights.sum())
            windows += len(weights)
        return total / weight, counted.samples, windows

    def _over_windows(
        self, pieces: Iterable[Waveform], compute: Callable[[Sequence[Waveform]], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the results of ``compute`` for batches of windows, and their weights."""
        for batch in self.windows(pieces):
            yield compute([window.samples for window in batch]), self.windows.weights(batch)

    def probabilities(self, waveforms: Sequence[Waveform]) -> Tensor:
        """Classifies waveforms without cutting them.

        Args:
            waveforms: Each (samples,), mono, at ``sample_rate``.

        Returns:
            (waveforms, classes), on the CPU.
        """
        return self.raw_probabilities(waveforms, self.inputs.temperature).float()

    def raw_probabilities(self, waveforms: Sequence[Waveform], temperature: float = 1.0) -> Tensor:
        """Returns :meth:`probabilities` in float64, and before temperature scaling by default."""
        # Single precision near 1 would lose the logits, which temperature scaling needs.
        logits = self.logits(map(self.tokens, waveforms)).double()
        return class_probabilities(logits, self.inputs.multi_label, temperature)

    def tempered(self, probabilities: Tensor) -> Tensor:
        """Applies the run's temperature to raw probabilities (sounds, classes)."""
        return tempered(probabilities, self.inputs.temperature, self.inputs.multi_label)

    @torch.inference_mode()
    def embeddings(self, waveforms: Sequence[Waveform]) -> Tensor:
        """Returns the embeddings of waveforms, (waveforms, width); see :meth:`probabilities`."""
        return self.model.embed(*self._batch(map(self.tokens, waveforms))).float().cpu()

    @torch.inference_mode()
    def logits(self, tokens: Iterable[Frames]) -> Tensor:
        """Returns the logits (clips, classes) of clips given as tokens, each (tokens, features)."""
        found: Tensor = self.model(*self._batch(tokens)).float().cpu()
        return found

    def _batch(self, tokens: Iterable[Frames]) -> tuple[Tensor, Tensor]:
        """Pads tokens; returns them and their mask on the model's device."""
        batch = collate([Example(one, 0, 0) for one in tokens])
        return batch.tokens.to(self.device), batch.padding_mask.to(self.device)

    def tokens(self, waveform: Waveform, offset: float | None = None) -> Frames:
        """Turns a waveform (samples,) into tokens (tokens, features), as in the run.

        For ``offset`` see :meth:`spaudio.tokens.front_end.FrontEnd.extract`.
        """
        front_end = self.front_end
        return front_end.tokens(front_end.restore(front_end.extract(waveform, offset)))


def _check_base(run: Path, settings: Settings, base: str | None) -> None:
    """Checks that the pretrained encoder of a run, if it has one, can be found.

    Args:
        run: The run's folder.
        settings: Its settings.
        base: Folder or Hub id of the encoder, if it has moved.

    Raises:
        ConfigError: If it cannot, or ``base`` is given to a run without one.
    """
    model = settings.model
    if not isinstance(model, PretrainedConfig):
        if base is not None:
            raise ConfigError(f"base={base}: {run} has no pretrained encoder; leave base out")
        return
    given = str(model.source)
    if base is None and is_missing(given):
        saved = load_weights(weights_folder(run))["base_hash"]
        raise ConfigError(
            f"{run} was adapted from a local encoder, {Path(given).name} (SHA-256 "
            f"{bytes(saved.tolist()).hex()[:12]}), but there is no folder {given}; give it with "
            "--base FOLDER, or spaudio.load(..., base=FOLDER)"
        )
    if base is not None and is_missing(base):
        raise ConfigError(f"base={base}: there is no such folder")


def bases_for(runs: Sequence[Path], base: str | None) -> list[str | None]:
    """Returns which pretrained encoder to give to each of several models.

    Args:
        runs: Their folders.
        base: The encoder that the user has named. It is given to the first model whose own cannot
            be found, or else to the first that has one, and to those of the same encoder.

    Raises:
        ConfigError: If none of them has one.
    """
    if base is None or len(runs) == 1:
        return [base] * len(runs)
    models = [read_run_settings(run).model for run in runs]
    sources = [str(one.source) if isinstance(one, PretrainedConfig) else None for one in models]
    having = [number for number, source in enumerate(sources) if source is not None]
    if not having:
        raise ConfigError(
            f"base={base}: none of {some([str(run) for run in runs])} has a pretrained encoder; "
            "leave base out"
        )
    hashes = {
        number: load_weights(weights_folder(runs[number]))["base_hash"].tolist()
        for number in having
    }
    moved = [number for number in having if is_missing(str(sources[number]))]
    wanted = hashes[(moved or having)[0]]
    return [base if hashes.get(number) == wanted else None for number in range(len(runs))]


def _check_inputs(run: Path, inputs: Inputs, bands: int, outputs: int) -> None:
    """Checks that what a run has saved fits its settings and its model.

    Raises:
        CheckpointError: If numbers of bands or classes differ.
    """
    normaliser, classes = inputs.normaliser, len(inputs.classes)
    if isinstance(normaliser, BandNormaliser) and len(normaliser.mean) != bands:
        raise CheckpointError(
            f"{run / INPUTS} normalises {len(normaliser.mean)} bands, but the run has {bands}; run "
            "the recipe again"
        )
    if outputs != classes:
        raise CheckpointError(
            f"the model of {run} has {outputs} outputs, but the run names {classes} classes; run "
            "the recipe again"
        )


def _find_device(name: str | None) -> torch.device:
    """Returns the device of a name, or of the machine; see :class:`Predictor`."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # a build without CUDA fails an assertion
        raise ConfigError(
            f"device={name!r} is not available here; use 'cpu', or 'cuda' on a machine with a GPU"
        ) from error
    return device


class _Counted:
    """Pieces of a sound, whose samples are counted as they are read."""

    def __init__(self, pieces: Iterable[Waveform]) -> None:
        self.pieces, self.samples = pieces, 0

    def __iter__(self) -> Iterator[Waveform]:
        for piece in self.pieces:
            self.samples += len(piece)
            yield piece


def finite(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns outputs of a model as they are.

    Raises:
        CheckpointError: If some are not finite.
    """
    if not np.isfinite(outputs).all():
        raise CheckpointError(
            "the model gives values that are not finite; its weights are damaged: run the recipe "
            "again"
        )
    return outputs
