"""Which places of a padded batch lie beyond the end of their clip."""

import torch
from torch import Tensor


def beyond_end(size: int, lengths: Tensor) -> Tensor:
    """Returns a boolean (batch, size), True from each of the lengths (batch,) on."""
    return torch.arange(size, device=lengths.device) >= lengths.unsqueeze(1)
