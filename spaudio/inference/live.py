"""Predictions for a sound as it arrives: incrementally by a causal model, or over windows."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from spaudio.audio.chunks import Window, cut_windows, in_batches
from spaudio.audio.decode import Waveform, check_rate, check_samples, is_silent, resample_stream
from spaudio.errors import ConfigError
from spaudio.inference.predict import Predictor, finite
from spaudio.inference.predictions import Ranked
from spaudio.inference.sounds import ARRAY, Audio
from spaudio.model.classifier import Classifier
from spaudio.model.stream import EncoderStream
from spaudio.tokens.config import TokenConfig
from spaudio.training.temperature import class_probabilities

SILENCE = "_silence_"


@dataclass(frozen=True)
class Heard(Ranked):
    """A prediction for a part of a sound.

    Silence (`spaudio.audio.decode.is_silent`) is not classified, because few models were trained on
    it: its probabilities are all 0, and its label is ``"_silence_"``.

    Args:
        start: Seconds since the start of the sound.
        end: Seconds.
        probabilities: (classes,).
        classes: Class names, in the order of the probabilities.
    """

    start: float
    end: float
    probabilities: NDArray[np.float32]
    classes: Sequence[str]

    @property
    @override
    def label(self) -> str:
        """The most probable class, or ``"_silence_"``."""
        return super().label if self.probabilities.any() else SILENCE

    @override
    def decision(self, unsure: float) -> str:
        return super().decision(unsure) if self.probabilities.any() else SILENCE


class WindowClassifier(Protocol):
    """Classifies windows of sound: a predictor, or several models together (`Ensemble`)."""

    @property
    def sample_rate(self) -> int: ...  # noqa: D102
    @property
    def event_seconds(self) -> float: ...  # noqa: D102
    @property
    def frame_seconds(self) -> float: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    def warn_of_rate(self, audio: Audio, sample_rate: int | None = None) -> None: ...  # noqa: D102
    def check_window(self, seconds: float) -> None: ...  # noqa: D102
    def read(  # noqa: D102
        self, audio: Audio, sample_rate: int | None = None, *, silent_ok: bool = False
    ) -> Iterable[Waveform]: ...
    def probabilities(self, waveforms: Sequence[Waveform]) -> Tensor: ...  # noqa: D102


class Stream(ABC):
    """Turns blocks of samples into predictions.

    Attributes:
        predictor: Predictor of the run, or another classifier of windows.
        how: How the predictions are computed, in words.
        first: Seconds of sound before the first prediction.
        delay: From then on, the maximum seconds from the arrival of a sound to the first prediction
            that includes it, without the computing time.
    """

    predictor: WindowClassifier
    how: str
    first: float
    delay: float

    def __call__(
        self, blocks: Iterable[NDArray[np.floating]], sample_rate: int | None = None
    ) -> Iterator[Heard]:
        """Yields predictions as soon as their sound has arrived.

        Args:
            blocks: Consecutive mono waveforms (samples,) of any length, floating-point with full
                scale at 1.0.
            sample_rate: Their rate in Hz; None is that of the model.

        Raises:
            AudioError: If a block is of another shape or type, or holds samples that are not
                finite or far too large.
            ConfigError: If the rate is out of range.
        """
        rate = self.predictor.sample_rate if sample_rate is None else sample_rate
        check_rate(rate)
        self.predictor.warn_of_rate(ARRAY, rate)
        return self.answers(map(check_samples, blocks), rate)

    @abstractmethod
    def answers(self, blocks: Iterable[Waveform], rate: int) -> Iterator[Heard]:
        """Yields predictions for blocks that need no check, such as those of a decoded file."""


def open_stream(
    predictor: Predictor, window: float | None = None, hop: float | None = None
) -> Stream:
    """Returns the stream of a model: incremental if it is causal, else over windows.

    Args:
        predictor: Predictor of the run.
        window: Maximum seconds of sound per prediction; None is the predictor's window for events.
        hop: Seconds from one prediction to the next; None is 0.25, or half the window if that is
            less.

    Raises:
        ConfigError: If window or hop is out of range.
    """
    window = predictor.event_seconds if window is None else window
    if hop is None:
        hop = min(0.25, window, max(window / 2, predictor.frame_seconds))
    refused = _why_not_incremental(predictor)
    if refused is None:
        try:
            return StateStream(predictor, window, hop)
        except ConfigError as error:
            refused = str(error)
    return WindowStream(predictor, window, hop, reason=refused)


def _why_not_incremental(predictor: Predictor) -> str | None:
    """Returns what keeps a model from being streamed incrementally; None if nothing does."""
    model, tokens = predictor.model, predictor.front_end.config
    if not isinstance(model, Classifier):
        return "a pretrained encoder"
    if not model.encoder.config.causal:
        return "model.causal=false"
    if tokens.normalise != "global":
        return f"tokens.normalise={tokens.normalise}"
    if tokens.learned:
        return None
    if tokens.trim:  # where the sound ends is known afterwards
        return "tokens.trim=true"
    if tokens.spectrogram.scaling == "pcen":
        return "tokens.spectrogram.scaling=pcen"  # its mean reaches back to the start
    if tokens.spectrogram.top_db:  # relative to the loudest value of the whole clip
        return f"tokens.spectrogram.top_db={tokens.spectrogram.top_db:g}"
    return None


class WindowStream(Stream):
    """Classifies overlapping windows, each as :meth:`Predictor.probabilities` does.

    Sound that is shorter than a window is one window. The last window ends with the sound.

    Args:
        predictor: Predictor of the run, or several models together.
        window: Seconds per window.
        hop: Seconds from one window to the next.
        batch: Windows that are classified together; more are faster, but delay predictions.
        reason: Why the model cannot be streamed incrementally; None if that was not tried.

    Raises:
        ConfigError: If window or hop is out of range.
    """

    def __init__(
        self,
        predictor: WindowClassifier,
        window: float,
        hop: float,
        *,
        batch: int = 1,
        reason: str | None = None,
    ) -> None:
        shortest = predictor.frame_seconds
        if not shortest <= hop <= window < math.inf:
            raise ConfigError(
                f"window={window:g} s, hop={hop:g} s; expected a hop from {shortest:g} s to the "
                "window"
            )
        predictor.check_window(window)
        self.predictor, self.batch = predictor, batch
        rate = predictor.sample_rate
        self.window_samples, self.hop_samples = math.ceil(window * rate), round(hop * rate)
        self.first, self.delay = window, hop
        why = "" if reason is None else f" ({reason}: not incrementally)"
        self.how = f"overlapping windows of {window:g} s, one every {hop:g} s{why}"

    def answers(self, blocks: Iterable[Waveform], rate: int) -> Iterator[Heard]:
        """See :class:`Stream`."""
        pieces = resample_stream(blocks, rate, self.predictor.sample_rate)
        windows = cut_windows(pieces, self.window_samples, self.hop_samples)
        for batch in in_batches(windows, self.batch):
            yield from self._answers(batch)

    def _answers(self, batch: Sequence[Window]) -> Iterator[Heard]:
        rate, classes = self.predictor.sample_rate, self.predictor.classes
        heard = np.array([not is_silent(window.samples) for window in batch])
        found = np.zeros((len(batch), len(classes)), np.float32)
        if heard.any():
            asked = [window.samples for window, sounds in zip(batch, heard, strict=True) if sounds]
            found[heard] = finite(self.predictor.probabilities(asked).numpy())
        for (start, samples), row in zip(batch, found, strict=True):
            end = (start + len(samples)) / rate
            yield Heard(start / rate, end, row, classes)


class StateStream(Stream):
    """Runs a causal model token by token; each token is computed once per context.

    Each prediction covers a context that grows to ``window`` seconds. When the context reaches half
    of that length, a second one begins; it takes over when the first one is full. So memory is
    constant, and after the first half window every prediction covers at least half a window. At the
    end of a sound of at most ``window`` seconds, the prediction equals that of
    :meth:`Predictor.probabilities`, up to rounding and the DC offset. The offset that is subtracted
    here is the mean of the sound so far.

    The encoder runs incrementally, with cached keys, values and filter state. Front-end and stem
    look a few frames ahead, so a token is computed once the samples that they look ahead to have
    arrived.

    Args:
        predictor: Predictor of a run with ``model.causal=true``, ``tokens.normalise=global`` and,
            for log-mel tokens, ``tokens.trim=false`` and ``tokens.spectrogram.top_db=0``.
        window: Seconds of the longest context, rounded up to whole tokens.
        hop: Seconds from one prediction to the next, rounded to whole tokens; at most half a
            window, or some sound would be in no prediction.

    Raises:
        ConfigError: If the model cannot be streamed, or window or hop is out of range.
    """

    predictor: Predictor

    def __init__(self, predictor: Predictor, window: float, hop: float) -> None:
        assert isinstance(predictor.model, Classifier)
        tokens = predictor.front_end.config
        if not 0 < hop <= window < math.inf:
            raise ConfigError(
                f"window={window:g} s, hop={hop:g} s; expected a positive hop of at most the window"
            )
        self.predictor, self.model, self.config = predictor, predictor.model, tokens
        self._hop = max(1, round(hop / tokens.token_seconds))
        # The last token of a sound may begin where it ends.
        self._longest = max(2, round(window * tokens.sample_rate) // tokens.token_samples + 1)
        self._half = math.ceil(self._longest / 2)  # tokens
        if self._hop > self._longest // 2 + 1:  # the start of a hop would be in no context
            raise ConfigError(
                f"hop={hop:g} s is more than half of window={window:g} s, with tokens of "
                f"{tokens.token_seconds:g} s"
            )
        self._behind, self._ahead = reach(tokens, self.model)
        EncoderStream(self.model.encoder)  # refuses what cannot be streamed
        most = self.model.encoder.config.max_tokens
        if self.model.encoder.learned is not None and self._longest > most:
            raise ConfigError(
                f"window={window:g} s needs {self._longest} positions, but the model has learned "
                f"model.max_tokens={most}; give a shorter window"
            )
        every = self._hop * tokens.token_seconds
        # The last token of a prediction begins one token before its end.
        self.first = self.delay = every - tokens.token_seconds + self._ahead / tokens.sample_rate
        self.how = f"incrementally, with the causal model, every {every:g} s"

    def answers(self, blocks: Iterable[Waveform], rate: int) -> Iterator[Heard]:
        """See :class:`Stream`."""
        step = self.config.token_samples
        margin = math.ceil(self._behind / step)  # tokens
        kept, count, done = _Kept(step), 0, 0
        contexts: list[_Context] = []
        for piece in resample_stream(blocks, rate, self.config.sample_rate):
            kept.add(piece)
            count += len(piece)
            while (done + self._hop - 1) * step + self._ahead <= count:
                yield self._answer(contexts, kept, done, self._hop)
                done += self._hop
                kept.drop(done - margin)
        left = count // step + 1 - done if count else 0
        for start in range(done, done + left, self._hop):
            size = min(self._hop, done + left - start)
            heard = self._answer(contexts, kept, start, size)
            yield replace(heard, end=min(heard.end, count / self.config.sample_rate))

    @torch.inference_mode()
    def _tokens(self, samples: Waveform, offset: float | None, start: int, size: int) -> Tensor:
        """Returns the tokens (1, size, dim) from ``start`` on, as the encoder takes them."""
        model, device = self.model, self.predictor.device
        found = torch.from_numpy(self.predictor.tokens(samples, offset))[None].to(device)
        padding = torch.zeros(found.shape[:2], dtype=torch.bool, device=device)
        if model.front_end is not None:
            found = model.front_end(found, padding)
        if model.stem is not None:
            found = model.stem(found, padding)
        projected: Tensor = model.project(found[:, start : start + size])
        return projected

    @torch.inference_mode()
    def _answer(self, contexts: "list[_Context]", kept: "_Kept", start: int, size: int) -> Heard:
        """Advances every context by ``size`` tokens from ``start`` on; the oldest one predicts."""
        step, at = self.config.token_samples, start - kept.first
        # No result depends on later samples.
        needed = kept.samples[: (at + size - 1) * step + self._ahead]
        new = self._tokens(needed, kept.mean(len(needed)), at, size)
        samples = kept.samples[at * step : (at + size) * step]
        coming = contexts[-1].start + self._half if contexts else start
        contexts += [
            _Context(self.model, begin) for begin in range(coming, start + size, self._half)
        ]
        while start + size - contexts[0].start > self._longest:
            del contexts[0]
        for context in contexts:
            skipped = max(0, context.start - start)  # tokens
            context.step(new[:, skipped:], samples[skipped * step :])
        oldest, inputs = contexts[0], self.predictor.inputs
        seconds = self.config.token_seconds
        end = (start + new.shape[1]) * seconds
        if is_silent(oldest.extremes):
            found = np.zeros(len(inputs.classes), np.float32)
        else:
            logits = self.model.head(self.model.pooling(oldest.outputs)).float()
            shares = class_probabilities(logits, inputs.multi_label, inputs.temperature)
            found = finite(shares[0].cpu().numpy())
        return Heard(oldest.start * seconds, end, found, inputs.classes)


class _Kept:
    """The samples from token ``first`` on, and the mean of all samples of the sound so far.

    Args:
        step: Samples per token.
    """

    def __init__(self, step: int) -> None:
        self.samples, self.first = np.zeros(0, np.float32), 0
        self._step, self._dropped = step, 0.0  # the sum of the samples before `first`

    def add(self, piece: Waveform) -> None:
        self.samples = np.concatenate([self.samples, piece])

    def drop(self, token: int) -> None:
        """Drops the samples before a token; a negative one drops none."""
        count = max(0, token - self.first) * self._step
        self._dropped += float(self.samples[:count].sum(dtype=np.float64))
        self.samples, self.first = self.samples[count:], max(self.first, token)

    def mean(self, count: int) -> float:
        """Returns the mean of the sound up to the first ``count`` samples that are kept."""
        kept = float(self.samples[:count].sum(dtype=np.float64))
        return (self._dropped + kept) / max(1, self.first * self._step + count)


class _Context:
    """The encoder's state over the tokens from ``start`` on, and its outputs for them.

    ``extremes`` are the lowest and highest sample of these tokens.
    """

    def __init__(self, model: Classifier, start: int) -> None:
        self.start = start
        self.stream = EncoderStream(model.encoder)
        self.outputs = torch.zeros(1, 0, model.encoder.config.dim)
        self.extremes = np.zeros(0, np.float32)

    def step(self, new: Tensor, samples: Waveform) -> None:
        if len(samples):  # the last token of a sound may begin where it ends
            seen = np.concatenate([self.extremes, samples])
            self.extremes = np.array([seen.min(), seen.max()])
        self.outputs = torch.cat([self.outputs.to(new), self.stream.step(new)], dim=1)


def reach(tokens: TokenConfig, model: Classifier) -> tuple[int, int]:
    """Returns the most samples before and after its start that a token depends on.

    Args:
        tokens: Settings of the front-end.
        model: The model, whose learned front-end and stem are included.
    """
    frame, hop = tokens.frame_reach, tokens.hop_samples
    after = frame + tokens.learned  # windows of learned filters may have an odd number of samples
    if model.stem is None:
        return frame, after + (tokens.stack - 1) * hop
    around = (model.stem.receptive_field - 1) // 2 * hop
    return frame + around, after + around
