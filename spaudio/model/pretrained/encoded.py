"""The front-end of pretrained encoders: what a frozen part computes for a clip, to be cached."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.errors import ConfigError
from spaudio.model.pooling import statistics
from spaudio.model.pretrained.encoded_augment import EncodedAugment
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder
from spaudio.tokens.augment import AugmentConfig
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.dc_offset import without_offset
from spaudio.tokens.front_end import FrontEnd
from spaudio.tokens.normalise import BandNormaliser


@dataclass(frozen=True)
class CachedOutputs:
    """What is computed once per clip and cached.

    Args:
        kind: ``"inputs"``, the input of the encoder (frames, width); ``"states"``, concatenated
            hidden states and a column that is 0 at quiet tokens, else 1 (tokens, count * dim + 1);
            ``"statistics"``, mean and standard deviation over time of hidden states
            (count, 2 * dim).
        count: Number of states.
        first: Index of the first state.
    """

    kind: str
    count: int = 0
    first: int = 0

    @property
    def last(self) -> int:
        """Index of the last state."""
        return self.first + self.count - 1


def as_cached(states: Tensor) -> Tensor:
    """Returns hidden states or inputs as the cache returns them, rounded to float16."""
    most = torch.finfo(torch.float16).max
    return states.clamp(-most, most).half().float()


def is_quiet(states: Tensor) -> Tensor:
    """Returns which tokens are quiet, from cached hidden states (batch, tokens, count * dim + 1).

    In a mix of two clips, a token is quiet if each of them is quiet there or has ended.
    """
    return states[..., -1] < 1e-3


class EncodedFrontEnd(FrontEnd):
    """Computes features once per clip, with a frozen encoder or the part of it that stays frozen.

    :meth:`forward` is not supported, because an encoder reads clip by clip.

    Args:
        config: The settings.
        base: The encoder, not adapted. Copies in other processes, which only read cached frames,
            have none.
        cached: What is computed, to be cached.
    """

    how_to_shorten = "give table= with the start and end of shorter clips (recipe folder)"

    def __init__(self, config: TokenConfig, base: PretrainedEncoder, cached: CachedOutputs) -> None:
        zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
        super().__init__(config, BandNormaliser("global", zero, one))
        self.base, self.cached = base, cached

    def augment(self, config: AugmentConfig) -> EncodedAugment | None:
        """Returns the augmentation of what is cached; None if that is not log-mel frames."""
        about = self.base.log_mel
        return EncodedAugment(config, about) if self.cached.kind == "inputs" and about else None

    @override
    def pooled(self, tokens: Tensor, padding: Tensor) -> Tensor:
        if self.cached.kind == "inputs":
            return self.base.pooled_inputs(tokens, padding)
        if self.cached.kind == "statistics":
            return super().pooled(tokens, padding)
        return ~self.base.unpooled(padding, is_quiet(tokens))

    @property
    @override
    def cache_key(self) -> dict[str, Any]:
        cached = self.cached
        later: dict[str, Any] = {"first": cached.first} if cached.first else {}
        if cached.kind == "states":
            later["columns"] = ["not quiet"]  # besides the states
        part = {"part": cached.kind, "count": cached.count, "dc_offset": False}
        return self.base.cache_key | part | later

    @override
    def extract(self, waveform: Waveform, offset: float | None = None) -> npt.NDArray[Any]:
        inputs = self.base.inputs(without_offset(waveform, offset))
        if self.cached.kind == "inputs":
            return as_cached(self._finite(torch.from_numpy(inputs))).half().numpy()
        states, quiet = self.base.hidden_states(inputs, self.cached.count, self.cached.first)
        self._finite(states)
        if self.cached.kind == "states":
            tokens = as_cached(states).transpose(0, 1).flatten(1)
            heard = tokens.new_ones(len(tokens)) if quiet is None else ~quiet[0]
            return torch.cat([tokens, heard.unsqueeze(1)], dim=1).to(torch.float16).numpy()
        padding = torch.zeros(1, states.shape[1], dtype=torch.bool)
        return statistics(states, self.base.unpooled(padding, quiet)).numpy()

    def _finite(self, values: Tensor) -> Tensor:
        if not values.isfinite().all():
            raise ConfigError(
                f"{self.base.source} gives a clip values that are not finite; its weights may be "
                "damaged: fetch them again"
            )
        return values

    @override
    def fit(self, training_clips: Iterable[Frames]) -> BandNormaliser:
        assert isinstance(self.normaliser, BandNormaliser)
        return self.normaliser  # the head standardises what it reads

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the encoder, which processes that read cached frames do not need."""
        return vars(self) | {"_modules": {}}
