"""A classifier on a pretrained encoder that is frozen, or adapted by a few parameters."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from spaudio.errors import CheckpointError
from spaudio.filters import TokenFilter
from spaudio.filters.insertion.attach import CHILD
from spaudio.model.classifier import Classifier
from spaudio.model.pooling import statistics
from spaudio.model.pretrained.adapt import Adaptation, adapt
from spaudio.model.pretrained.encoded import as_cached, is_quiet
from spaudio.model.pretrained.head import Head
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder


class AdaptedClassifier(nn.Module):
    """Classifies clips with a pretrained encoder.

    Its state dict holds what is trained, the standardisation, and the hash of the encoder; it can
    be loaded only with the same encoder.

    Args:
        base: The encoder; it is changed in place.
        adaptation: What is trained.
        classes: Number of classes.

    Raises:
        ConfigError: If the encoder cannot be adapted in this way.
    """

    front_end = None
    stem = None

    def __init__(self, base: PretrainedEncoder, adaptation: Adaptation, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.adaptation = adaptation
        alone = adaptation.way == "probe"
        self.lr_scales = {} if alone else {"head": adaptation.head_lr_scale}
        self.cached = adaptation.cached(base)
        self.first_state = adaptation.first_state(base)
        states = base.states - self.first_state
        self.head = Head(states, base.dim, classes, adaptation.pooling, adaptation.combine)
        self.base = base
        self.register_buffer("base_hash", torch.tensor(list(bytes.fromhex(base.hash))).byte())
        adapt(base, adaptation)
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

    def token_filters(self) -> dict[int, TokenFilter]:
        """Returns the filters by layer, from 0."""
        found = ((layer, getattr(part, CHILD, None)) for layer, part in enumerate(self.base.layers))
        return {layer: filter for layer, filter in found if filter is not None}

    def trained_parameters(self) -> int:
        """Number of parameters that are trained, with the head."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @override
    def train(self, mode: bool = True) -> "AdaptedClassifier":
        super().train(mode)
        for filter in self.token_filters().values():
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
        return self.classify(self.embed(tokens, padding_mask))

    def embed(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Returns what the head's linear layer reads, (batch, width); arguments as `forward`."""
        if self.cached.kind == "statistics":
            return self.head.mixed(tokens[:, self.first_state :])
        return self.head.pool(*self.hidden_states(tokens, padding_mask))

    def classify(self, embeddings: Tensor) -> Tensor:
        """Returns the logits (batch, classes) of what :meth:`embed` returns."""
        logits: Tensor = self.head.linear(embeddings)
        return logits

    def from_inputs(self, inputs: Tensor, padding: Tensor) -> Tensor:
        """Classifies the inputs of the encoder (batch, frames, width), whatever is cached.

        Cached inputs, and cached states that the head reads, are rounded as in the cache; the state
        that the first layer after the cache reads is rounded only after :meth:`round_as_cached`.
        """
        cached = self.cached
        states, unpooled = self._run_whole(
            as_cached(inputs) if cached.kind == "inputs" else inputs, padding
        )
        rounded = 0
        if cached.kind == "states":
            # The output of a filter is computed from the cache, not read from it.
            rounded = cached.last + (self._first_filter() is None) - self.first_state
        states = [as_cached(s) if i < rounded else s for i, s in enumerate(states)]
        return self.classify(self.head.pool(states, unpooled))

    def _first_filter(self) -> TokenFilter | None:
        """Returns the filter that reads the last cached state, if one does."""
        return self.token_filters().get(self.cached.last - 1)

    def round_as_cached(self) -> None:
        """Rounds the last cached hidden state where it is read, from now on."""
        cached = self.cached
        if cached.kind != "states":
            return
        layers = self.base.layers
        reader: nn.Module | None = self._first_filter()
        if reader is None and cached.last < len(layers):
            reader = layers[cached.last]
        if reader is not None:
            reader.register_forward_pre_hook(lambda _, given: (as_cached(given[0]), *given[1:]))

    def _run_whole(self, inputs: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        states, token_padding = self.base.run(*self.base.first_tokens(inputs, padding))
        unpooled = self.base.unpooled(token_padding, self.base.quiet(inputs, padding))
        return states[self.first_state :], unpooled

    def hidden_states(
        self, tokens: Tensor, padding_mask: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """The hidden states that the head reads, each (batch, tokens, dim).

        Returns:
            The states, and which tokens are not pooled over, (batch, tokens).
        """
        if padding_mask is None:
            padding_mask = tokens.new_zeros(tokens.shape[:2], dtype=torch.bool)
        cached = self.cached
        if cached.kind == "inputs":
            return self._run_whole(tokens, padding_mask)
        quiet = is_quiet(tokens)
        known = list(tokens[..., :-1].chunk(cached.count, dim=2))
        if self.adaptation.way == "probe":
            return known, self.base.unpooled(padding_mask, quiet)
        last, filter = known.pop(), self._first_filter()
        if filter is not None:
            last = filter(last, padding_mask)
        states, padding_mask = self.base.run(last, padding_mask, cached.last)
        unpooled = self.base.unpooled(padding_mask, quiet)
        return (known + states)[self.first_state - cached.first :], unpooled

    @torch.no_grad()
    def statistics(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Mean and standard deviation of the hidden states that the head reads.

        Args:
            tokens: As :meth:`forward` takes them.
            padding_mask: Likewise.

        Returns:
            (batch, states, 2 * dim).
        """
        if self.cached.kind == "statistics":
            return tokens[:, self.first_state :]
        states, unpooled = self.hidden_states(tokens, padding_mask)
        return torch.stack([statistics(state, unpooled) for state in states], dim=1)

    def __deepcopy__(self, memo: dict[int, Any]) -> "AdaptedClassifier":
        """Copies what is trained; frozen parameters are shared."""
        for parameter in self.parameters():
            if not parameter.requires_grad:
                memo.setdefault(id(parameter), parameter)
        found = AdaptedClassifier.__new__(AdaptedClassifier)
        memo[id(self)] = found
        vars(found).update(copy.deepcopy(vars(self), memo))
        return found


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    assert isinstance(module, AdaptedClassifier)
    for name in module._left_out:
        state.pop(prefix + name, None)


def _check_base(module: nn.Module, state: Mapping[str, Any], prefix: str, *others: Any) -> None:
    assert isinstance(module, AdaptedClassifier)
    check_base(state.get(f"{prefix}base_hash"), module.base)


def check_base(saved: Tensor | None, base: PretrainedEncoder) -> None:
    """Checks that an encoder is the one that weights were trained on.

    Args:
        saved: Bytes of its hash, as a checkpoint has them; None is not checked.
        base: The encoder.

    Raises:
        CheckpointError: If it is another one.
    """
    if saved is None or (found := bytes(saved.tolist()).hex()) == base.hash:
        return
    raise CheckpointError(
        f"the weights were trained on an encoder with SHA-256 {found[:12]}, but that of "
        f"{base.source} is {base.hash[:12]}: weights, config.json or preprocessor_config.json "
        "differ. Restore that encoder, or train again"
    )


def _expect_left_out(module: nn.Module, keys: Any) -> None:
    assert isinstance(module, AdaptedClassifier)
    keys.missing_keys[:] = [name for name in keys.missing_keys if name not in module._left_out]


AnyClassifier = Classifier | AdaptedClassifier


def outside_clip(model: nn.Module, padding: Tensor) -> Tensor:
    """Returns a mask of padding tokens, including the silence that an encoder adds around a clip.

    Args:
        model: Any model; only some pretrained encoders add silence.
        padding: Boolean (batch, tokens), True where a token is padding.

    Returns:
        Boolean (batch, tokens).
    """
    return model.base.around(padding) if isinstance(model, AdaptedClassifier) else padding
