"""A run's model with its front-end as one module: waveforms in, probabilities out.

As ``torch.export`` requires, every shape follows from batch and samples without a branch.
"""

import copy

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.export.whisper import WhisperFrames
from spaudio.inference.predict import Predictor
from spaudio.model.classifier import Classifier
from spaudio.model.pretrained.adapted import AdaptedClassifier, AnyClassifier
from spaudio.model.pretrained.pretrained_encoder import RATE
from spaudio.model.pretrained.whisper_encoder import (
    SILENCE_AFTER,
    SILENCE_BEFORE,
    WhisperAudioEncoder,
)
from spaudio.training.temperature import class_probabilities


class WaveformClassifier(nn.Module):
    """Front-end, classifier and softmax (for several labels, sigmoid) of a run, on the CPU.

    Args:
        predictor: Predictor of the run; its modules are copied.

    Raises:
        ConfigError: If the model uses a pretrained encoder other than Whisper's, or its clips are
            too long for Whisper's.
    """

    front_end: nn.Module
    model: AnyClassifier

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        model = predictor.model
        if isinstance(model, AdaptedClassifier):
            if not isinstance(model.base, WhisperAudioEncoder):
                raise ConfigError(
                    f"{predictor.run} uses the encoder {model.base.source}, which cannot be "
                    "exported: of pretrained encoders, only those of Whisper can. Use spaudio "
                    "predict, or train with model=small"
                )
            self.front_end = WhisperFrames(model.base.extractor)
            most = model.base.max_seconds - 2
            if predictor.window_seconds > most:
                raise ConfigError(
                    f"{predictor.run} was trained on clips of up to {predictor.window_seconds:g} "
                    f"s; models with Whisper's encoder can be exported for up to {most:g} s"
                )
        else:
            self.front_end = copy.deepcopy(predictor.front_end)
        self.token_samples = predictor.front_end.config.token_samples
        self.multi_label = predictor.inputs.multi_label
        self.temperature = predictor.inputs.temperature
        # Copied in advance, because a copy of an adapted model would share its frozen parameters.
        own = {id(parameter): copy.deepcopy(parameter) for parameter in model.parameters()}
        self.model = copy.deepcopy(model, own).cpu()
        if isinstance(self.model, Classifier) and (learned := self.model.encoder.learned):
            # The front-end's last token is padding, and may lie beyond the longest sequence.
            rows = learned.weight.detach()
            learned.weight = nn.Parameter(torch.cat([rows, rows[-1:]]))
        if isinstance(self.model, AdaptedClassifier):
            self.model.round_as_cached()
        self.eval().requires_grad_(False)
        for value in (*self.parameters(), *self.buffers()):
            # torch.export saves the whole storage of a view.
            value.data = value.data.contiguous().clone()

    @property
    def max_samples(self) -> int | None:
        """Largest number of samples that the model's positions allow; None if unlimited."""
        if isinstance(self.model, AdaptedClassifier):
            added = 2 + (SILENCE_BEFORE + SILENCE_AFTER) // 2  # tokens, by the front-end
            return round(self.model.base.max_seconds * RATE) - added * self.token_samples
        learned = self.model.encoder.learned
        if learned is None:
            return None
        return (len(learned.weight) - 1) * self.token_samples - 1

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Classifies a padded batch of waveforms.

        Args:
            waveform: (batch, samples), float, mono, at the run's sample rate, full scale at 1.0.
            lengths: (batch,), int64, samples of each clip.

        Returns:
            Probabilities (batch, classes).
        """
        tokens, padding = self.front_end(waveform, lengths)
        model: AnyClassifier = self.model
        logits = (
            model.from_inputs(tokens, padding)
            if isinstance(model, AdaptedClassifier)
            else model(tokens, padding)
        )
        return class_probabilities(logits, self.multi_label, self.temperature)
