"""A classifier on a pretrained encoder that is frozen, or adapted by a few parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from spaudio.errors import CheckpointError, ConfigError
from spaudio.filters import FILTERS, NoFilter, TokenFilter, insert_filters
from spaudio.filters.attach import CHILD
from spaudio.model.encoded import Part
from spaudio.model.pooling import statistics
from spaudio.model.pretrained import Base, copied

WAYS = ("probe", "filters", "lora", "bitfit", "full")
POOLINGS = ("mean_std", "attention")
STATES = ("upper", "all")
COMBINATIONS = ("concat", "sum")


@dataclass(frozen=True)
class Adaptation:
    """How a pretrained encoder is adapted.

    Args:
        way: ``"probe"`` trains the head alone; ``"filters"`` filters after layers as well,
            ``"lora"`` low-rank changes of queries and values, ``"bitfit"`` the biases of the
            layers, ``"full"`` the whole encoder, without convolutions over samples; or, if layers
            are named, all of these.
        pooling: ``"mean_std"`` takes mean and standard deviation over time, ``"attention"`` a
            weighted mean.
        filter_options: ``name`` and options of the filter.
        layers: Layers that are adapted or followed by a filter, from 0; None for all.
        lora_rank: Rank of LoRA.
        states: Hidden states that the head reads: ``"upper"``, those of the upper half of the
            layers, or ``"all"``, from the embedding on.
        combine: ``"concat"`` gives the head these states side by side, ``"sum"`` a learned
            weighted sum of them.
        head_rate: Learning rate of the head, as a share of that of the encoder. The head is fitted
            before, and large steps would undo it.

    Raises:
        ConfigError: If a value is unknown, or does not fit the others.
    """

    way: str = "probe"
    pooling: str = "mean_std"
    filter_options: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    layers: Sequence[int] | None = None
    lora_rank: int = 4
    states: str = "upper"
    combine: str = "concat"
    head_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ConfigError(f"adapt={self.way}; expected {', '.join(WAYS)}")
        known = {"pooling": POOLINGS, "states": STATES, "combine": COMBINATIONS}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"model.{name}={getattr(self, name)}; expected {' or '.join(choices)}"
                )
        filtered = self.filter_options["name"] != "none"
        if filtered != (self.way == "filters"):
            raise ConfigError(
                "adapt=filters needs a filter, such as filter=depthwise"
                if not filtered
                else f"filter={self.filter_options['name']} has no place in adapt={self.way}; give "
                "adapt=filters, or filter=none"
            )
        if self.lora_rank < 1:
            raise ConfigError(f"model.lora_rank must be at least 1; got {self.lora_rank}")
        if not 0 <= self.head_rate <= 1:
            raise ConfigError(f"model.head_rate must lie in [0, 1]; got {self.head_rate}")

    def first_state(self, base: Base) -> int:
        """Number of the first hidden state that the head reads."""
        return base.states // 2 if self.states == "upper" else 0

    def part(self, base: Base) -> Part:
        """What can be cached per clip.

        Raises:
            ConfigError: If the encoder has no such layer.
        """
        if self.way == "probe":
            if self.pooling == "mean_std":
                return Part("statistics", base.states)
            first = self.first_state(base)
            return Part("states", base.states - first, first)
        if self.way == "full" and self.layers is None:
            return Part("inputs")
        # The layers begin again with the first one whose output changes. A filter changes that of
        # the next one, but the output of the last of all is normalised after its filter.
        lowest = self.adapted_layers(base)[0] + (self.way == "filters")
        lowest = min(lowest, len(base.layers) - 1)
        first = min(lowest, self.first_state(base))
        return Part("states", lowest + 1 - first, first)

    def adapted_layers(self, base: Base) -> list[int]:
        """Numbers of the layers that are adapted or followed by a filter, in ascending order.

        Raises:
            ConfigError: If the encoder has no such layer.
        """
        found = range(len(base.layers)) if self.layers is None else self.layers
        if not found or not all(0 <= layer < len(base.layers) for layer in found):
            raise ConfigError(
                f"model.adapt_layers={list(found)}: {base.source} has layers 0 to "
                f"{len(base.layers) - 1}"
            )
        return sorted(set(found))


class Head(nn.Module):
    """Standardised hidden states, side by side or summed, pooled over time; a linear layer.

    Args:
        states: Number of hidden states that are read.
        dim: Width of a state.
        classes: Number of classes.
        pooling: ``"mean_std"`` or ``"attention"``.
        combine: ``"concat"`` or ``"sum"``.
    """

    def __init__(
        self,
        states: int,
        dim: int,
        classes: int,
        pooling: str = "mean_std",
        combine: str = "concat",
    ) -> None:
        super().__init__()
        width = 2 * dim if pooling == "mean_std" else dim
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(states, width))
        self.register_buffer("std", torch.ones(states, width))
        self.mix = nn.Parameter(torch.zeros(states)) if combine == "sum" else None
        if self.mix is None:
            width, dim = states * width, states * dim
        self.score = None if pooling == "mean_std" else nn.Parameter(torch.zeros(dim))
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def standardise(self, found: Tensor) -> None:
        """Takes mean and standard deviation from statistics (clips, states, 2 * dim)."""
        if self.score is None:
            mean, std = found.mean(dim=0), found.std(dim=0, correction=0)
        else:  # of tokens, from those of clips
            means, spreads = found.chunk(2, dim=-1)
            mean = means.mean(dim=0)
            std = ((means - mean).square() + spreads.square()).mean(dim=0).sqrt()
        self.mean.copy_(mean)
        # States are cached as float16; a spread of the size of its rounding is none.
        self.std.copy_(torch.maximum(std, 2e-3 * mean.abs()).clamp_min(1e-4))

    def forward(self, found: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Classifies statistics (batch, states, 2 * dim); returns logits (batch, classes)."""
        logits: Tensor = self.linear(self.mixed(found))
        return logits

    def mixed(self, found: Tensor) -> Tensor:
        """Combines statistics (batch, states, 2 * dim); returns (batch, width)."""
        return self.combined(self.standardised(found))

    def standardised(self, found: Tensor) -> Tensor:
        """Standardises statistics (batch, states, 2 * dim)."""
        width = self.mean.shape[-1]  # an attention that is not trained yet is a mean
        return (found[..., :width] - self.mean) / self.std

    def combined(self, x: Tensor) -> Tensor:
        """Combines standardised states (..., states, width) to (..., width of the linear layer)."""
        if self.mix is None:
            return x.flatten(-2)
        weights = self.mix.softmax(dim=0).unsqueeze(-1)
        mixed: Tensor = (x * weights).sum(dim=-2)
        return mixed

    def pool(self, states: Sequence[Tensor], padding: Tensor) -> Tensor:
        """Pools hidden states, each (batch, tokens, dim); returns (batch, width)."""
        if self.score is None:
            return self.mixed(torch.stack([statistics(s, padding) for s in states], dim=1))
        stacked = torch.stack(list(states), dim=2)
        mixed = self.combined((stacked - self.mean) / self.std)
        score = (mixed @ self.score).masked_fill(padding, float("-inf"))
        mixed = mixed.masked_fill(padding.unsqueeze(-1), 0)
        return (score.softmax(dim=1).unsqueeze(-1) * mixed).sum(dim=1)


class AdaptedClassifier(nn.Module):
    """Classifies clips by a pretrained encoder.

    Its state dict holds what is trained, the standardisation, and the hash of the encoder's
    weights; it can be loaded only on the same encoder.

    Args:
        base: The encoder; it is changed in place.
        adaptation: What is trained.
        classes: Number of classes.

    Raises:
        ConfigError: If the encoder cannot be adapted so.
    """

    front_end = None
    stem = None

    def __init__(self, base: Base, adaptation: Adaptation, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.adaptation = adaptation
        self.filter_options = dict(adaptation.filter_options)
        alone = adaptation.way == "probe"
        self.rate_shares = {} if alone else {"head": adaptation.head_rate}
        self.part = adaptation.part(base)
        self.first_state = adaptation.first_state(base)
        states = base.states - self.first_state
        self.head = Head(states, base.dim, classes, adaptation.pooling, adaptation.combine)
        self.base = base
        self.register_buffer("base_hash", torch.tensor(list(bytes.fromhex(base.hash))).byte())
        _adapt(base, adaptation)
        trained = {f"base.{n}" for n, p in base.named_parameters() if p.requires_grad}
        self._left_out = {
            name
            for name in self.state_dict()
            if name.startswith("base.") and name not in trained and f".{CHILD}." not in name
        }
        hooks: Any = self  # torch does not annotate these
        hooks.register_state_dict_post_hook(_leave_out)
        hooks.register_load_state_dict_pre_hook(_check_base)
        hooks.register_load_state_dict_post_hook(_expect_left_out)

    @property
    def encoder(self) -> "AdaptedClassifier":
        """The part that has filters."""
        return self

    @property
    def filters(self) -> list[nn.Module]:
        """The filter after each layer, or a :class:`NoFilter`."""
        return [getattr(layer, CHILD, NoFilter()) for layer in self.base.layers]

    def token_filters(self) -> list[TokenFilter]:
        """The filters that were inserted."""
        return [f for f in self.filters if isinstance(f, TokenFilter) and f.name != "none"]

    def trained_parameters(self) -> int:
        """Number of parameters that are trained, with the head."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @override
    def train(self, mode: bool = True) -> "AdaptedClassifier":
        super().train(mode)
        for filter in self.token_filters():
            filter.train(mode)
        return self

    def forward(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Classifies what :class:`EncodedFrontEnd` returns for this adaptation.

        Args:
            tokens: (batch, tokens, width).
            padding_mask: Boolean (batch, tokens), True where a token is padding.

        Returns:
            Logits (batch, classes).
        """
        logits: Tensor = self.head.linear(self.embed(tokens, padding_mask))
        return logits

    def embed(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Returns what the last layer classifies, (batch, width); arguments as `forward`."""
        if self.part.kind == "statistics":
            return self.head.mixed(tokens[:, self.first_state :])
        return self.head.pool(*self.hidden_states(tokens, padding_mask))

    def from_inputs(self, inputs: Tensor, padding: Tensor) -> Tensor:
        """Classifies the inputs of the encoder (batch, frames, width), whatever is cached."""
        logits: Tensor = self.head.linear(self.head.pool(*self._run_whole(inputs, padding)))
        return logits

    def _run_whole(self, inputs: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        states, kept = self.base.run(*self.base.embed(inputs, padding))
        unpooled = self.base.unpooled(kept, self.base.quiet(inputs, padding))
        return states[self.first_state :], unpooled

    def hidden_states(
        self, tokens: Tensor, padding_mask: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """The hidden states that the head reads, each (batch, tokens, dim).

        Returns:
            The states, and which tokens are not pooled over, (batch, tokens).
        """
        if padding_mask is None:
            padding_mask = tokens.new_zeros(tokens.shape[:2], dtype=torch.bool)
        part = self.part
        if part.kind == "inputs":
            return self._run_whole(tokens, padding_mask)
        # Of two clips that are mixed, a token is quiet if it is in both.
        quiet = tokens[..., -1] > 0.999
        known = list(tokens[..., :-1].chunk(part.count, dim=2))
        if self.adaptation.way == "probe":
            return known, self.base.unpooled(padding_mask, quiet)
        last, layer = known.pop(), part.first + part.count - 1
        if layer:  # it has not been filtered yet
            last = self.filters[layer - 1](last, padding_mask)
        states, padding_mask = self.base.run(last, padding_mask, layer)
        unpooled = self.base.unpooled(padding_mask, quiet)
        return (known + states)[self.first_state - part.first :], unpooled

    @torch.no_grad()
    def statistics(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Mean and standard deviation of the hidden states that the head reads.

        Args:
            tokens: As :meth:`forward` takes them.
            padding_mask: Likewise.

        Returns:
            (batch, states, 2 * dim).
        """
        if self.part.kind == "statistics":
            return tokens[:, self.first_state :]
        states, unpooled = self.hidden_states(tokens, padding_mask)
        return torch.stack([statistics(state, unpooled) for state in states], dim=1)

    def __deepcopy__(self, memo: dict[int, Any]) -> "AdaptedClassifier":
        """Copies what is trained; frozen parameters are shared."""
        found: AdaptedClassifier = copied(self, memo)
        return found


def _adapt(base: Base, adaptation: Adaptation) -> None:
    """Makes the parameters that an adaptation trains, or lets them be trained."""
    base.requires_grad_(False)
    if adaptation.way == "probe":
        return
    layers = [base.layers[i] for i in adaptation.adapted_layers(base)]
    if adaptation.way == "filters":
        options = dict(adaptation.filter_options)
        name = options.pop("name")
        known = FILTERS[name].__init__.__code__.co_varnames
        if "dim" in known:
            options["dim"] = base.dim
        try:
            insert_filters(base, layers, name, zero_init="zero_init" in known, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"filter: {error}") from error
    elif adaptation.way == "lora":
        _insert_lora(base, adaptation.adapted_layers(base), adaptation.lora_rank)
    elif adaptation.way == "bitfit":
        for name, parameter in nn.ModuleList(layers).named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
    elif adaptation.layers is not None:
        nn.ModuleList(layers).requires_grad_(True)
    else:
        base.net.requires_grad_(True)
        for part in ("embed_positions", "feature_extractor"):
            if hasattr(base.net, part):
                getattr(base.net, part).requires_grad_(False)
        for name, parameter in base.net.named_parameters():
            if name == "masked_spec_embed" or ".upsample." in name:  # which are not used
                parameter.requires_grad_(False)


def _insert_lora(base: Base, layers: Sequence[int], rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners import lora
    except ImportError as error:
        raise ConfigError(
            f"adapt=lora needs peft ({error}): pip install 'spaudio[pretrained]'"
        ) from error
    targets = [
        name
        for name, _ in base.layers.named_modules()
        if name.endswith((".q_proj", ".v_proj")) and int(name.partition(".")[0]) in layers
    ]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    inject_adapter_in_model(config, base.layers)
    if base.net.config.model_type != "wavlm":
        return

    linear: Any = lora.Linear

    class Merged(linear):  # type: ignore[misc]
        """Of WavLM, whose attention reads the weights and does not call the layers."""

        @property
        @override
        def weight(self) -> Tensor:
            changed: Tensor = self.base_layer.weight + self.get_delta_weight("default")
            return changed

    for module in base.layers.modules():
        if isinstance(module, linear):
            module.__class__ = Merged


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    assert isinstance(module, AdaptedClassifier)
    for name in module._left_out:
        state.pop(prefix + name, None)


def _check_base(module: nn.Module, state: Mapping[str, Any], prefix: str, *others: Any) -> None:
    assert isinstance(module, AdaptedClassifier)
    saved = state.get(f"{prefix}base_hash")
    own = module.get_buffer("base_hash").cpu()
    if saved is not None and not torch.equal(saved.cpu(), own):
        raise CheckpointError(
            f"the weights were trained on another encoder than {module.base.source}, whose SHA-256 "
            f"is {module.base.hash[:12]} and not {bytes(saved.tolist()).hex()[:12]}; restore that "
            "encoder, or train again"
        )


def _expect_left_out(module: nn.Module, keys: Any) -> None:
    assert isinstance(module, AdaptedClassifier)
    keys.missing_keys[:] = [name for name in keys.missing_keys if name not in module._left_out]
