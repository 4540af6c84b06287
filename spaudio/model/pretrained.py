"""Pretrained audio encoders of the Hugging Face Hub, run layer by layer.

An encoder is run in three steps, so that the result of each can be cached: the input of one clip
(:meth:`Base.inputs`), the embedding of a padded batch (:meth:`Base.embed`), and the layers from any
one on (:meth:`Base.run`).
"""

import copy
import hashlib
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from spaudio.errors import AudioError, ConfigError
from spaudio.filters.transformer import attention
from spaudio.model.encoded_augment import LogMelInput

Frames = npt.NDArray[np.float32]
RATE = 16_000  # Hz, of all supported encoders
# Silence around a clip that Whisper reads, in frames of 10 ms. It was trained on clips in 30 s of
# sound or silence; with it, the features of digits by unheard speakers are better.
SILENCE_BEFORE, SILENCE_AFTER = 50, 100
QUIET = 40.0  # dB below the loudest token of a clip, from which on a token is not pooled over
CONVOLUTIONAL = ("wav2vec2", "hubert", "wavlm", "sew", "data2vec-audio")
SUPPORTED = ("whisper", "audio-spectrogram-transformer", *CONVOLUTIONAL)
_HELP = "give a folder with config.json, preprocessor_config.json and model.safetensors, or the id"


class Base(nn.Module):
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
        self.hash = _hash(net)

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
    def max_seconds(self) -> float:
        """Length of the longest clip, in seconds."""
        return math.inf

    @property
    def log_mel(self) -> LogMelInput | None:
        """What its input is, if that is log-mel frames."""
        return None

    @property
    def cache_key(self) -> dict[str, Any]:
        """What the hidden states of a clip depend on."""
        return {"pretrained": self.hash}

    def around(self, padding: Tensor) -> Tensor:
        """Returns where a token is not of the clip itself.

        Args:
            padding: Boolean (batch, tokens), True where a token is padding, as :meth:`run` returns.

        Returns:
            Boolean (batch, tokens), True at padding and at silence that was put around the clip.
        """
        return padding

    def quiet(self, inputs: Tensor, padding: Tensor) -> Tensor | None:
        """Returns which tokens are ``QUIET`` decibels or more below the loudest of their clip.

        Args:
            inputs: (batch, frames, width), as :meth:`embed` takes them.
            padding: Boolean (batch, frames), True at padding.

        Returns:
            Boolean (batch, tokens); None if the inputs do not tell.
        """
        return None

    def unpooled(self, padding: Tensor, quiet: Tensor | None) -> Tensor:
        """Returns the tokens that are not pooled over.

        Args:
            padding: Boolean (batch, tokens), True where a token is padding, as :meth:`run` returns.
            quiet: From :meth:`quiet`. It is ignored where no token of a clip would be left.

        Returns:
            Boolean (batch, tokens).
        """
        around = self.around(padding)
        if quiet is None:
            return around
        return around | (quiet & ~(around | quiet).all(dim=1, keepdim=True))

    @override
    def train(self, mode: bool = True) -> "Base":
        return super().train(False)

    def inputs(self, waveform: Frames) -> Frames:
        """Returns the input (frames, width) of one clip (samples,) at 16 kHz; not differentiable.

        Raises:
            AudioError: If the clip is too long.
        """
        if len(waveform) / RATE > self.max_seconds:
            raise AudioError(
                f"{len(waveform) / RATE:.1f} s is more than the {self.max_seconds:g} s that "
                f"{self.source} takes; cut the clip"
            )
        with torch.inference_mode():
            return self._inputs(waveform)

    @abstractmethod
    def _inputs(self, waveform: Frames) -> Frames: ...

    @abstractmethod
    def embed(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Turns padded inputs into the tokens that the first layer reads.

        Args:
            inputs: (batch, frames, width).
            padding: Boolean (batch, frames), True at padding.

        Returns:
            Tokens (batch, tokens, dim), and their padding mask (batch, tokens).
        """

    def run(
        self, tokens: Tensor, padding: Tensor, first: int = 0, stop: int | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Runs the layers from number ``first`` on.

        Args:
            tokens: (batch, tokens, dim), as the first of these layers reads them.
            padding: Boolean (batch, tokens), True at padding.
            first: Number of the first layer, from 0.
            stop: Number of the layer before which to stop; None runs all.

        Returns:
            Hidden states (batch, tokens, dim): the input of the first of these layers and the
            output of each; that of the last layer of all is normalised if the encoder ends with a
            norm. Then their padding mask (batch, tokens).
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

    @abstractmethod
    def _normalised(self, tokens: Tensor) -> Tensor:
        """Normalises the output of the last layer."""

    @torch.inference_mode()
    def hidden_states(
        self, inputs: Frames, count: int, first: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Computes hidden states of one clip.

        Args:
            inputs: (frames, width), from :meth:`inputs`.
            count: Number of states.
            first: Number of the first one.

        Returns:
            (count, tokens, dim), and what :meth:`quiet` returns.
        """
        batch = torch.from_numpy(inputs).unsqueeze(0)
        whole = torch.zeros(batch.shape[:2], dtype=torch.bool)
        states, _ = self.run(*self.embed(batch, whole), stop=first + count - 1)
        return torch.cat(states[first:]), self.quiet(batch, whole)


class WhisperBase(Base):
    """The encoder of Whisper, on log-mel frames of the clip and some silence around it.

    Whisper was trained on clips padded to 30 s. The frames here are those of the padded clip, cut
    to its length and ``SILENCE_BEFORE`` and ``SILENCE_AFTER`` frames, and the positions are cut
    with them; the layers then differ from the original in that tokens attend to less silence. Of a
    clip of almost 30 s, which leaves no room for it, the silence is cut.
    """

    @property
    @override
    def cache_key(self) -> dict[str, Any]:
        return super().cache_key | {"silence": [SILENCE_BEFORE, SILENCE_AFTER], "quiet": QUIET}

    @property
    @override
    def log_mel(self) -> LogMelInput:
        # A frame is (log10(power) + 4) / 4 in each band, and at least 2 less than the largest.
        most = 2 * int(self.net.config.max_source_positions)
        return LogMelInput(4 * math.log(10), most, SILENCE_BEFORE, SILENCE_AFTER, 2.0)

    @override
    def around(self, padding: Tensor) -> Tensor:
        count = (~padding).sum(dim=1, keepdim=True)
        places = torch.arange(padding.shape[1], device=padding.device)
        # Two frames are a token.
        return (places < SILENCE_BEFORE // 2) | (places >= count - SILENCE_AFTER // 2)

    @override
    def quiet(self, inputs: Tensor, padding: Tensor) -> Tensor:
        # Two frames are a token.
        level = (self.log_mel.nats * inputs).logsumexp(dim=-1).masked_fill(padding, -math.inf)
        second = F.pad(level, (0, 1), value=-math.inf)[:, 1::2]
        loudness = torch.maximum(level[:, ::2], second)
        own = loudness.masked_fill(self.around(padding[:, ::2]), -math.inf)
        return loudness <= own.amax(dim=1, keepdim=True) - QUIET / 10 * math.log(10)

    @property
    @override
    def max_seconds(self) -> float:
        return int(self.net.config.max_source_positions) / 50

    @override
    def _inputs(self, waveform: Frames) -> Frames:
        hop = self.extractor.hop_length
        frames = SILENCE_BEFORE + max(1, -(-len(waveform) // hop)) + SILENCE_AFTER
        before = SILENCE_BEFORE * hop
        after = frames * hop - before - len(waveform) + self.extractor.n_fft
        padded = np.pad(waveform, (before, after))
        found = self.extractor(
            padded, sampling_rate=RATE, padding="longest", truncation=False, return_tensors="np"
        ).input_features[0]
        return np.ascontiguousarray(
            found[:, : min(frames, self.log_mel.most)].T, dtype=np.float32
        )  # fmt: skip

    @override
    def embed(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        outside = padding.unsqueeze(1)
        x = inputs.transpose(1, 2).masked_fill(outside, 0)
        x = F.gelu(self.net.conv1(x)).masked_fill(outside, 0)  # what the second one sees alone
        x = F.gelu(self.net.conv2(x)).transpose(1, 2)
        return x + self.net.embed_positions.weight[: x.shape[1]], padding[:, ::2]

    @override
    def _normalised(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.layer_norm(tokens)
        return found


class SpectrogramBase(Base):
    """An Audio Spectrogram Transformer, on clips padded to its fixed length, as it was trained."""

    @property
    @override
    def log_mel(self) -> LogMelInput:
        # Nats of power and zeros, less a mean and divided by twice a standard deviation.
        nats, most = 2 * self.extractor.std, int(self.extractor.max_length)
        return LogMelInput(nats, most, padding=-self.extractor.mean / nats)

    @property
    @override
    def max_seconds(self) -> float:
        return (int(self.extractor.max_length) * 160 + 240) / RATE

    @override
    def _inputs(self, waveform: Frames) -> Frames:
        padded = np.pad(waveform, (0, max(0, 400 - len(waveform))))  # one window
        found = self.extractor(padded, sampling_rate=RATE, return_tensors="np").input_values[0]
        return np.ascontiguousarray(found, dtype=np.float32)

    @override
    def embed(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        x: Tensor = self.net.embeddings(inputs)
        return x, torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)

    @override
    def _normalised(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.layernorm(tokens)
        return found


class ConvolutionalBase(Base):
    """An encoder of the wav2vec2 family: convolutions over samples, then a transformer.

    The input is the output of the convolutions over samples, which are never trained. They run on
    each clip alone, as some normalise over time and would mix padding in.
    """

    @property
    @override
    def layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.net.encoder.layers
        return layers

    @property
    def squeeze(self) -> int:
        """Inputs per token: 1, or the squeeze factor of SEW."""
        return int(getattr(self.net.config, "squeeze_factor", 1))

    @property
    def _norm_first(self) -> bool:
        """Whether layers begin with their norms, and the encoder ends with one."""
        return bool(getattr(self.net.config, "do_stable_layer_norm", False))

    @override
    def _inputs(self, waveform: Frames) -> Frames:
        field, step = 1, 1
        config = self.net.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            field, step = field + (kernel - 1) * step, step * stride
        least = field + (self.squeeze - 1) * step  # for one token
        found = self.extractor(waveform, sampling_rate=RATE, return_tensors="np").input_values[0]
        padded = np.pad(found, (0, max(0, least - len(found)))).astype(np.float32)
        frames = self.net.feature_extractor(torch.from_numpy(padded)[None])[0].T
        whole = len(frames) // self.squeeze * self.squeeze
        return np.ascontiguousarray(frames[:whole].numpy())

    @override
    def embed(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        net, encoder = self.net, self.net.encoder
        if hasattr(net, "project_features"):  # SEW
            x = net.layer_norm(inputs)
            x = net.feature_projection(x) if net.project_features else x
        else:
            x = net.feature_projection(inputs)
            x = x[0] if isinstance(x, tuple) else x
        outside = padding.unsqueeze(-1)
        x = x.masked_fill(outside, 0)
        if self.squeeze > 1:
            pooled = encoder.pool(x.transpose(1, 2))
            positions = encoder.pos_conv_embed(x.transpose(1, 2))
            x = (pooled + positions[..., : pooled.shape[2]]).transpose(1, 2)
        else:
            x = x + self._positions(x, outside)
        return x if self._norm_first else encoder.layer_norm(x), padding[:, :: self.squeeze]

    def _positions(self, x: Tensor, outside: Tensor) -> Tensor:
        """Embedding of positions, computed from the tokens themselves."""
        positions = self.net.encoder.pos_conv_embed
        if self.net.config.model_type != "data2vec-audio":
            found: Tensor = positions(x)
            return found
        for layer in positions.layers:  # each would read what the one before wrote at padding
            x = layer(x.masked_fill(outside, 0).transpose(1, 2)).transpose(1, 2)
        return x

    @override
    def _layer_arguments(self, tokens: Tensor, padding: Tensor) -> tuple[Tensor, ...]:
        if self.net.config.model_type != "wavlm":
            return super()._layer_arguments(tokens, padding)
        count = tokens.shape[1]
        first: Any = self.layers[0]
        bias: Tensor = first.attention.compute_bias(count, count)  # of all layers
        return ~padding, bias.repeat(len(tokens), 1, 1)

    @override
    def _normalised(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.encoder.layer_norm(tokens) if self._norm_first else tokens
        return found


def load_base(source: str) -> Base:
    """Loads a pretrained encoder: safetensors only, and no code of the repository is run.

    Args:
        source: Folder, of which nothing is downloaded, or id on the Hugging Face Hub.

    Raises:
        ConfigError: If it cannot be loaded, or its architecture is not supported.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"model=pretrained needs transformers ({error}): pip install 'spaudio[pretrained]'"
        ) from error
    local = Path(source).is_dir()
    options = {"local_files_only": local, "trust_remote_code": False}
    where = f"model.source={source}"
    try:
        config = transformers.AutoConfig.from_pretrained(source, **options)
        if config.model_type not in SUPPORTED:
            raise ConfigError(
                f"{where} is of the architecture {config.model_type!r}; supported are "
                f"{', '.join(SUPPORTED)}"
            )
        reader: Any = transformers.AutoFeatureExtractor
        extractor = reader.from_pretrained(source, **options)
        kind: Any = transformers.AutoModel
        whisper = config.model_type == "whisper"
        if whisper:
            from transformers.models.whisper.modeling_whisper import WhisperEncoder

            alone = "WhisperEncoder" in (config.architectures or [])
            kind = WhisperEncoder if alone else transformers.WhisperModel
            options.pop("trust_remote_code")
        with _quiet(transformers):
            net, loading = kind.from_pretrained(
                source,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=_attention() if config.model_type != "wavlm" else None,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{where} cannot be loaded ({_first_line(error)}); {_HELP} of a public model, which "
            "needs a network the first time"
        ) from error
    missing = [n for n in loading["missing_keys"] if n != "masked_spec_embed"]
    if missing:
        raise ConfigError(
            f"{where}: its weights lack {len(missing)} parameters of the encoder, such as "
            f"{sorted(missing)[0]}; {_HELP} of a model of this architecture"
        )
    if extractor.sampling_rate != RATE:
        raise ConfigError(f"{where} takes {extractor.sampling_rate} Hz; supported is {RATE} Hz")
    if whisper:
        return WhisperBase(net if alone else net.encoder, extractor, source)
    convolutional = config.model_type in CONVOLUTIONAL
    return (ConvolutionalBase if convolutional else SpectrogramBase)(net, extractor, source)


def _attention() -> str:
    """Makes this package's attention known to transformers; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("spaudio", _attend)
    AttentionMaskInterface.register("spaudio", sdpa_mask)
    return "spaudio"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; the layers are in evaluation mode, without dropout."""
    mixed = attention(query, key, value, attention_mask, scale=scaling)
    return mixed.transpose(1, 2).contiguous(), None


class _quiet:  # noqa: N801
    """Hides the report and progress bar of loading."""

    def __init__(self, transformers: Any) -> None:
        self.logging = transformers.utils.logging

    def __enter__(self) -> None:
        self.level = self.logging.get_verbosity()
        self.bar = self.logging.is_progress_bar_enabled()
        self.logging.set_verbosity_error()
        self.logging.disable_progress_bar()

    def __exit__(self, *error: object) -> None:
        self.logging.set_verbosity(self.level)
        if self.bar:
            self.logging.enable_progress_bar()


def _hash(net: nn.Module) -> str:
    """Returns the SHA-256 of all weights, with their names, in float32."""
    found = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def share_frozen(module: nn.Module, memo: dict[int, Any]) -> None:
    """Makes a deep copy share the parameters that are not trained; ``memo`` is the copy's."""
    for parameter in module.parameters():
        if not parameter.requires_grad:
            memo[id(parameter)] = parameter


def copied(module: Any, memo: dict[int, Any]) -> Any:
    """Copies a module in depth, but shares its frozen parameters."""
    share_frozen(module, memo)
    kind: type[Any] = type(module)
    found = kind.__new__(kind)  # type: ignore[call-overload]
    memo[id(module)] = found
    found.__dict__.update(copy.deepcopy(vars(module), memo))
    return found
