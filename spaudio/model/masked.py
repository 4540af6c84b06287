"""Predicts masked tokens: a classifier's parts below its pooling, and a linear layer."""

from torch import Tensor, nn

from spaudio.model.classifier import Classifier


class MaskedPredictor(nn.Module):
    """Predicts the frames of masked tokens.

    The frames of masked tokens are set to zero, the mean of normalised frames, before the stem, so
    that no convolution and no batch statistics can see them.

    Args:
        classifier: Its stem, projection and encoder are used, not copied; it has no learned
            front-end.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        assert classifier.front_end is None
        self.stem = classifier.stem
        self.project = classifier.project
        self.encoder = classifier.encoder
        self.predict = nn.Linear(classifier.encoder.config.dim, classifier.features)

    def forward(self, tokens: Tensor, padding_mask: Tensor, masked: Tensor) -> Tensor:
        """Predicts tokens.

        Args:
            tokens: (batch, tokens, features), normalised frames.
            padding_mask: Boolean (batch, tokens), True where a token is padding.
            masked: Boolean (batch, tokens), True where a token is masked.

        Returns:
            (batch, tokens, features).
        """
        x = tokens.masked_fill(masked.unsqueeze(-1), 0)
        if self.stem is not None:
            x = self.stem(x, padding_mask)
        predicted: Tensor = self.predict(self.encoder(self.project(x), padding_mask))
        return predicted
