"""A run's model with its front-end as one module: waveforms in, probabilities out.

As ``torch.export`` requires, every shape follows from batch and samples without a branch.
"""

import copy

from torch import Tensor, nn

from spaudio.experiment.predict import Predictor, class_probabilities
from spaudio.model.classifier import Classifier


class WaveformClassifier(nn.Module):
    """Front-end, classifier and softmax of a run, on the CPU.

    Args:
        predictor: Predictor of the run; its modules are copied.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.front_end = copy.deepcopy(predictor.front_end)
        self.multi_label = predictor.inputs.multi_label
        self.temperature = predictor.inputs.temperature
        assert isinstance(predictor.model, Classifier)  # no pretrained encoder
        self.model = copy.deepcopy(predictor.model).cpu()
        self.eval().requires_grad_(False)
        for value in (*self.parameters(), *self.buffers()):
            # torch.export saves the whole storage of a view.
            value.data = value.data.contiguous().clone()

    @property
    def max_samples(self) -> int | None:
        """Largest number of samples that the model's positions allow; None if unlimited."""
        learned = self.model.encoder.learned
        if learned is None:
            return None
        return (len(learned.weight) - 1) * self.front_end.config.token_samples - 1

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Classifies a padded batch of waveforms.

        Args:
            waveform: (batch, samples), float, mono, at the run's sample rate, full scale at 1.0.
            lengths: (batch,), int64, samples of each clip.

        Returns:
            Probabilities (batch, classes).
        """
        logits = self.model(*self.front_end(waveform, lengths))
        return class_probabilities(logits, self.multi_label, self.temperature)
