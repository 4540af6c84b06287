"""The base of pretrained encoders: inputs of a clip, tokens of a batch, layers run one by one.

An encoder is run in three steps, so that the result of each can be cached: the input of one clip
(:meth:`PretrainedEncoder.inputs`), the first tokens of a padded batch
(:meth:`PretrainedEncoder.first_tokens`), and the layers from any one on
(:meth:`PretrainedEncoder.run`).
"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.errors import AudioError
from spaudio.tokens.config import Frames

RATE = 16_000  # Hz, of all supported encoders
_EXCESS = 0.03  # of the limit, by which a clip may be too long: tracks of GTZAN last up to 30.65 s
# Settings beside the weights that change hidden states: of the network, and of the extractor.
_NET = (
    "num_attention_heads", "encoder_attention_heads", "hidden_act", "activation_function",
    "feat_extract_activation", "feat_extract_norm", "layer_norm_eps", "do_stable_layer_norm",
    "conv_stride", "num_conv_pos_embedding_groups", "conv_pos_batch_norm", "num_buckets",
    "max_bucket_distance", "squeeze_factor", "patch_size", "frequency_stride", "time_stride",
)  # fmt: skip
_EXTRACTOR = (
    "do_normalize", "mean", "std", "feature_size", "num_mel_bins", "max_length", "hop_length",
    "n_fft", "dither",
)  # fmt: skip


@dataclass(frozen=True)
class LogMelInput:
    """Describes the log-mel input of a pretrained encoder.

    Args:
        nats: Nats of power per unit of the input.
        most: Frames of the longest input.
        before: Frames of silence before the clip.
        after: Frames of silence after it.
        range: No value lies further below the largest of its clip; silence lies this far below.
        padding: Value of the frames that pad every input to ``most``; None if there are none.
    """

    nats: float
    most: int
    before: int = 0
    after: int = 0
    range: float = np.inf
    padding: float | None = None

    def silence(self, frames: int) -> tuple[int, int]:
        """Returns the frames of silence before and after the clip in an input of ``frames``.

        The longest inputs may have less silence than others, and count as a clip without any.
        """
        return (self.before, self.after) if frames < self.most else (0, 0)


class PretrainedEncoder(nn.Module):
    """A pretrained encoder. It is always in evaluation mode, and frozen until it is adapted.

    Args:
        net: The encoder of ``transformers``.
        extractor: Its feature extractor.
        source: Folder or id that it was loaded from.
    """

    def __init__(self, net: nn.Module, extractor: Any, source: str) -> None:
        super().__init__()
        self.net: Any = net.requires_grad_(False).eval()
        self.extractor = extractor
        self.source = source
        self.hash = _hash(net, extractor)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        layers: nn.ModuleList = self.net.layers
        return layers

    @property
    def dim(self) -> int:
        """Width of a token."""
        return int(self.net.config.hidden_size)

    @property
    def states(self) -> int:
        """Number of hidden states: the embedding and the output of each layer."""
        return len(self.layers) + 1

    @property
    def token_seconds(self) -> float:
        """Step from one token to the next, in seconds."""
        raise NotImplementedError

    @property
    def tokens_in_time(self) -> bool:
        """Whether each token is one step after the one before it."""
        return True

    @property
    def max_seconds(self) -> float:
        """Length of the longest clip that it accepts, in seconds."""
        return math.inf

    @property
    def log_mel(self) -> LogMelInput | None:
        """Description of its input, if that is log-mel frames."""
        return None

    @property
    def cache_key(self) -> dict[str, Any]:
        """What the hidden states of a clip depend on."""
        return {"pretrained": self.hash}

    def around(self, padding: Tensor) -> Tensor:
        """Returns which tokens do not belong to the clip itself.

        Args:
            padding: Boolean (batch, tokens), True where a token is padding, as :meth:`run` returns.

        Returns:
            Boolean (batch, tokens), True at padding and at silence that was added around the clip.
        """
        return padding

    def quiet(self, inputs: Tensor, padding: Tensor) -> Tensor | None:
        """Returns which tokens belong to pauses.

        Args:
            inputs: (batch, frames, width), as :meth:`first_tokens` takes them.
            padding: Boolean (batch, frames), True at padding.

        Returns:
            Boolean (batch, tokens); None if the inputs do not show it.
        """
        return None

    def unpooled(self, padding: Tensor, quiet: Tensor | None) -> Tensor:
        """Returns the tokens that are not pooled over.

        Args:
            padding: Boolean (batch, tokens), True where a token is padding, as :meth:`run` returns.
            quiet: From :meth:`quiet`. It is ignored for clips that would have no token left.

        Returns:
            Boolean (batch, tokens).
        """
        around = self.around(padding)
        if quiet is None:
            return around
        return around | (quiet & ~(around | quiet).all(dim=1, keepdim=True))

    def pooled_inputs(self, inputs: Tensor, padding: Tensor) -> Tensor:
        """Returns which inputs become tokens that are pooled over.

        Args:
            inputs: (batch, frames, width), as :meth:`first_tokens` takes them.
            padding: Boolean (batch, frames), True at padding.

        Returns:
            Boolean (batch, frames).
        """
        return ~padding

    @override
    def train(self, mode: bool = True) -> "PretrainedEncoder":
        return super().train(False)

    def inputs(self, waveform: Waveform) -> Frames:
        """Returns the input (frames, width) of one clip (samples,) at 16 kHz; not differentiable.

        Raises:
            AudioError: If the clip exceeds ``max_seconds`` by more than 3 %; a smaller excess is
                cut off.
        """
        seconds = len(waveform) / RATE
        if seconds > self.max_seconds * (1 + _EXCESS):
            raise AudioError(
                f"{seconds:.1f} s is more than the {self.max_seconds:g} s that "
                f"{self.source} takes; cut the clip, or give table= with the start and end of "
                "shorter ones (recipe folder)"
            )
        if seconds > self.max_seconds:
            waveform = waveform[: int(self.max_seconds * RATE)]
        with torch.inference_mode():
            return self._inputs(waveform)

    def _inputs(self, waveform: Waveform) -> Frames:
        raise NotImplementedError

    def first_tokens(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Turns padded inputs into the tokens that the first layer reads.

        Args:
            inputs: (batch, frames, width).
            padding: Boolean (batch, frames), True at padding.

        Returns:
            Tokens (batch, tokens, dim), and their padding mask (batch, tokens).
        """
        raise NotImplementedError

    def run(
        self, tokens: Tensor, padding: Tensor, first: int = 0, stop: int | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Runs the layers from index ``first`` on.

        Args:
            tokens: (batch, tokens, dim), as the first of these layers reads them.
            padding: Boolean (batch, tokens), True at padding.
            first: Index of the first layer, from 0.
            stop: Index of the layer before which to stop; None runs all.

        Returns:
            Hidden states (batch, tokens, dim): the input of the first of these layers and the
            output of each; that of the encoder's last layer is normalised if the encoder ends with
            a norm. Then their padding mask (batch, tokens).
        """
        states = [tokens]
        arguments = self._layer_arguments(tokens, padding)
        for layer in list(self.layers)[first:stop]:
            found = layer(states[-1], *arguments)
            states.append(found[0] if isinstance(found, tuple) else found)
        if len(states) > 1 and stop in (None, len(self.layers)):
            states[-1] = self._normalised(states[-1])
        return states, padding

    def _layer_arguments(self, tokens: Tensor, padding: Tensor) -> tuple[Tensor, ...]:
        """What each layer reads besides tokens."""
        return (~padding[:, None, None],)

    def _normalised(self, tokens: Tensor) -> Tensor:
        """Normalises the output of the last layer."""
        raise NotImplementedError

    @torch.inference_mode()
    def hidden_states(
        self, inputs: Frames, count: int, first: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Computes hidden states of one clip.

        Args:
            inputs: (frames, width), from :meth:`inputs`.
            count: Number of states.
            first: Index of the first state.

        Returns:
            (count, tokens, dim), and what :meth:`quiet` returns.
        """
        batch = torch.from_numpy(inputs).unsqueeze(0)
        whole = torch.zeros(batch.shape[:2], dtype=torch.bool)
        states, _ = self.run(*self.first_tokens(batch, whole), stop=first + count - 1)
        return torch.cat(states[first:]), self.quiet(batch, whole)


def _hash(net: Any, extractor: Any) -> str:
    """Returns the SHA-256 of all weights in float32, and of the settings that change outputs."""
    found = hashlib.sha256()
    for names, owner in ((_NET, net.config), (_EXTRACTOR, extractor)):
        # Without those that are off: later versions of transformers may add them.
        used = {name: value for name in names if (value := getattr(owner, name, None))}
        found.update(json.dumps(used, sort_keys=True).encode())
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().contiguous().cpu().numpy().tobytes())
    return found.hexdigest()
