"""How a pretrained encoder is adapted: what is trained besides the head."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from spaudio.errors import ConfigError, how_to_install
from spaudio.filters import FILTERS, insert_filters
from spaudio.model.pretrained.encoded import CachedOutputs
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder

WAYS = ("probe", "filters", "lora", "bitfit", "full")
HEAD_POOLINGS = ("mean_std", "attention")
STATES = ("upper", "all")
COMBINATIONS = ("concat", "sum")


@dataclass(frozen=True)
class Adaptation:
    """How a pretrained encoder is adapted.

    Args:
        way: ``"probe"`` trains only the head. The others also train: ``"filters"``, filters after
            layers; ``"lora"``, low-rank updates of queries and values; ``"bitfit"``, the biases of
            the layers; ``"full"``, the whole encoder except convolutions over samples and fixed
            positions or, if ``layers`` are given, all of their parameters.
        pooling: ``"mean_std"`` takes mean and standard deviation over time, ``"attention"`` a
            weighted mean.
        filter_options: ``name`` and options of the filter.
        layers: Layers that are adapted or followed by a filter, counted from 0; None for all.
        lora_rank: Rank of LoRA.
        states: Hidden states that the head reads: ``"all"``, the embedding and the output of each
            layer, or ``"upper"``, the upper half of these.
        combine: ``"concat"`` concatenates these states for the head, ``"sum"`` gives it a learned
            weighted sum of them.
        head_lr_scale: Learning rate of the head, as a fraction of the encoder's. The head is fitted
            beforehand, and large steps would undo that.

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
    head_lr_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ConfigError(f"adapt={self.way}; expected {', '.join(WAYS)}")
        known = {"pooling": HEAD_POOLINGS, "states": STATES, "combine": COMBINATIONS}
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
                else f"filter={self.filter_options['name']} has no effect with adapt={self.way}; "
                "give adapt=filters, or filter=none"
            )
        if self.lora_rank < 1:
            raise ConfigError(f"model.lora_rank must be at least 1; got {self.lora_rank}")
        if not 0 <= self.head_lr_scale <= 1:
            raise ConfigError(f"model.head_lr_scale must lie in [0, 1]; got {self.head_lr_scale}")

    def first_state(self, base: PretrainedEncoder) -> int:
        """Index of the first hidden state that the head reads."""
        return base.states // 2 if self.states == "upper" else 0

    def cached(self, base: PretrainedEncoder) -> CachedOutputs:
        """What can be cached per clip.

        Raises:
            ConfigError: If the encoder has no such layer.
        """
        if self.way == "probe":
            if self.pooling == "mean_std":
                return CachedOutputs("statistics", base.states)
            first = self.first_state(base)
            return CachedOutputs("states", base.states - first, first)
        if self.way == "full" and self.layers is None:
            return CachedOutputs("inputs")
        # Layers are rerun from the first one whose output changes. A filter changes the output of
        # the next layer, but the output of the last layer is normalised after its filter.
        lowest = self.adapted_layers(base)[0] + (self.way == "filters")
        lowest = min(lowest, len(base.layers) - 1)
        first = min(lowest, self.first_state(base))
        return CachedOutputs("states", lowest + 1 - first, first)

    def adapted_layers(self, base: PretrainedEncoder) -> list[int]:
        """Indices of the layers that are adapted or followed by a filter, in ascending order.

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


def adapt(base: PretrainedEncoder, adaptation: Adaptation) -> None:
    """Adds the parameters that an adaptation trains, or makes existing ones trainable."""
    base.requires_grad_(False)
    if adaptation.way == "probe":
        return
    layers = nn.ModuleList(base.layers[i] for i in adaptation.adapted_layers(base))
    if adaptation.way == "filters":
        _insert_filters(base, layers, adaptation.filter_options)
    elif adaptation.way == "lora":
        _insert_lora(base, adaptation.adapted_layers(base), adaptation.lora_rank)
    elif adaptation.way == "bitfit":
        for name, parameter in layers.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
    elif adaptation.layers is not None:
        layers.requires_grad_(True)
    else:
        _train_all(base)


def _train_all(base: PretrainedEncoder) -> None:
    base.net.requires_grad_(True)
    for part in ("embed_positions", "feature_extractor"):
        if hasattr(base.net, part):
            getattr(base.net, part).requires_grad_(False)
    for name, parameter in base.net.named_parameters():
        unused = name == "masked_spec_embed" or ".upsample." in name or name.startswith("adapter.")
        if unused:
            parameter.requires_grad_(False)


def _insert_filters(
    base: PretrainedEncoder, layers: Iterable[nn.Module], filter_options: Mapping[str, Any]
) -> None:
    options = {**filter_options, "dim": base.dim}  # not used by filters without it
    name = options.pop("name")
    known = inspect.signature(FILTERS[name]).parameters if name in FILTERS else ()
    try:
        insert_filters(base, list(layers), name, zero_init="zero_init" in known, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"filter: {error}") from error


def _insert_lora(base: PretrainedEncoder, layers: Sequence[int], rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners import lora
    except ImportError as error:
        raise ConfigError(
            f"adapt=lora needs peft ({error}): {how_to_install('pretrained')}"
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
        """For WavLM, whose attention reads the weights and does not call the layers."""

        @property
        @override
        def weight(self) -> Tensor:
            changed: Tensor = self.base_layer.weight + self.get_delta_weight("default")
            return changed

    for module in base.layers.modules():
        if isinstance(module, linear):
            module.__class__ = Merged
