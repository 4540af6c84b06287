"""A run's model with its front-end as one module: waveforms in, probabilities out.

It is written for ``torch.export``: every shape follows from batch and samples without a branch.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.errors import CheckpointError
from spaudio.experiment.predict import Predictor, class_probabilities
from spaudio.tokens.cache import FULL_SCALE
from spaudio.tokens.logmel import LogMel, LogMelConfig
from spaudio.tokens.normalise import LEAST_RMS, LEAST_VARIANCE, LevelNormaliser, Normaliser


class LogMelTokens(nn.Module):
    """A padded batch of waveforms to normalised log-mel tokens.

    Args:
        front_end: Waveform to frames.
        normaliser: Of the run.
        stack: Frames a token.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, front_end: LogMel, normaliser: Normaliser, stack: int) -> None:
        super().__init__()
        self.front_end = front_end
        self.mode = normaliser.mode
        self.stack = stack
        self.hop = front_end.config.hop_samples
        self.register_buffer("mean", torch.from_numpy(normaliser.mean))
        self.register_buffer("std", torch.from_numpy(normaliser.std))

    @property
    def token_samples(self) -> int:
        """Samples from one token to the next."""
        return self.stack * self.hop

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms waveforms.

        Args:
            waveform: (batch, samples), float; what stands behind a clip's length is not read.
            lengths: (batch,), samples of each clip.

        Returns:
            Tokens (batch, tokens, stack * n_mels), and the boolean padding mask (batch, tokens).
        """
        samples = waveform.shape[1]
        # One token more than the longest clip has: export takes a length that may be 1 for fixed.
        tokens = samples // self.token_samples + 2
        waveform = waveform.masked_fill(_beyond(samples, lengths), 0)
        # So many zeros that there are whole tokens' worth of frames.
        missing = (tokens * self.stack - 1) * self.hop - samples
        # Rounded as the feature cache rounds what the model was trained on.
        frames = self.front_end(F.pad(waveform, (0, missing))).to(torch.float16).float()
        count = lengths // self.hop + 1
        padding = _beyond(tokens * self.stack, count).unsqueeze(-1)
        frames = self._normalise(frames, padding, count).masked_fill(padding, 0)
        # Not a reshape: torch.export cannot prove that `tokens` divides the number of frames.
        stacked = frames.unfold(1, self.stack, self.stack).transpose(2, 3).flatten(2)
        return stacked, _beyond(tokens, lengths // self.token_samples + 1)

    def _normalise(self, frames: Tensor, padding: Tensor, count: Tensor) -> Tensor:
        """What :class:`Normaliser` does, on a padded batch."""
        if self.mode == "global":
            return (frames - self.mean) / self.std
        number = count.view(-1, 1, 1)
        centred = frames - frames.masked_fill(padding, 0).sum(dim=1, keepdim=True) / number
        if self.mode == "clip":
            return centred / self.std
        squares = centred.masked_fill(padding, 0).square().sum(dim=1, keepdim=True)
        return centred / (squares / number).clamp(min=LEAST_VARIANCE).sqrt()


class WaveformTokens(nn.Module):
    """A padded batch of waveforms to tokens of samples, which the model's own front-end reads.

    Args:
        hop_samples: Samples from one frame to the next.
        normaliser: Of the run.
        stack: Frames a token.
    """

    def __init__(self, hop_samples: int, normaliser: LevelNormaliser, stack: int) -> None:
        super().__init__()
        self.hop = hop_samples
        self.normaliser = normaliser
        self.token_samples = stack * hop_samples

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts waveforms; as :class:`LogMelTokens`, tokens are (batch, tokens, stack * hop)."""
        samples = waveform.shape[1]
        tokens = samples // self.token_samples + 2
        waveform = waveform.masked_fill(_beyond(samples, lengths), 0)
        waveform = F.pad(waveform, (0, tokens * self.token_samples - samples))
        # Rounded to 16 bits as the feature cache rounds what the model was trained on.
        steps = (waveform * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1)
        waveform = steps / FULL_SCALE
        if self.normaliser.mode == "global":
            waveform = waveform / self.normaliser.rms
        else:
            number = (lengths // self.hop + 1) * self.hop
            power = waveform.square().sum(dim=1) / number
            waveform = waveform / power.sqrt().clamp(min=LEAST_RMS).unsqueeze(1)
        cut = waveform.unfold(1, self.token_samples, self.token_samples)
        return cut, _beyond(tokens, lengths // self.token_samples + 1)


class WaveformClassifier(nn.Module):
    """Front-end, classifier and softmax of a run, on the CPU.

    Args:
        predictor: Of the run; its modules are copied.

    Raises:
        CheckpointError: If the run's statistics are not those of its front-end.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.tokens = _tokens_of(predictor)
        self.multi_label = predictor.inputs.multi_label
        self.model = copy.deepcopy(predictor.model).cpu()
        self.eval().requires_grad_(False)
        for value in (*self.parameters(), *self.buffers()):
            value.data = value.data.contiguous().clone()  # views of larger storage are saved badly

    @property
    def max_samples(self) -> int | None:
        """Most samples that the model's positions reach, or None where there is no limit."""
        learned = self.model.encoder.learned
        if learned is None:
            return None
        return (len(learned.weight) - 1) * self.tokens.token_samples - 1

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Classifies.

        Args:
            waveform: (batch, samples), float, mono, at the run's sample rate, full scale at 1.0.
            lengths: (batch,), int64, samples of each clip.

        Returns:
            Probabilities (batch, classes).
        """
        logits = self.model(*self.tokens(waveform, lengths))
        return class_probabilities(logits, self.multi_label)


def _tokens_of(predictor: Predictor) -> LogMelTokens | WaveformTokens:
    """The form for export of a run's front-end: the place to add another kind."""
    settings, normaliser = predictor.settings, predictor.inputs.normaliser
    if isinstance(settings.front_end, LogMelConfig) and isinstance(normaliser, Normaliser):
        return LogMelTokens(LogMel(settings.front_end), normaliser, settings.stack)
    if isinstance(normaliser, LevelNormaliser):
        return WaveformTokens(settings.front_end.hop_samples, normaliser, settings.stack)
    raise CheckpointError(
        f"a run of {type(settings.front_end).__name__} cannot have statistics of "
        f"{type(normaliser).__name__}; run the recipe again"
    )


def _beyond(size: int, lengths: Tensor) -> Tensor:
    """Boolean (batch, size), True from each length on."""
    return torch.arange(size, device=lengths.device) >= lengths.unsqueeze(1)
