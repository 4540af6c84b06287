"""What a layer of a model says of its tokens: their width, and whether its attention is causal."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from spaudio.filters.insertion.locate import around


def is_causal(model: nn.Module, modules: Iterable[nn.Module]) -> bool:
    """Whether the attention of a layer, or around it, is causal, as models of transformers say.

    Their attention has a flag ``is_causal``. Where no module has one, a model that generates text
    without an encoder counts as causal.

    Args:
        model: The whole model.
        modules: The layer, and what contains it, innermost first (see :func:`around`).
    """
    for module in modules:
        flags: list[Any] = [getattr(each, "is_causal", None) for each in module.modules()]
        if any(isinstance(flag, bool) for flag in flags):
            return any(flag is True for flag in flags)
    generates = getattr(model, "generation_config", None) is not None
    return generates and not getattr(getattr(model, "config", None), "is_encoder_decoder", False)


def layer_dim(filter: str, name: str, layer: nn.Module, model: nn.Module) -> int:
    """Embedding dimension of the tokens that a layer returns.

    It is read from the layer itself if it is linear, a convolution, an embedding or a norm;
    otherwise from its norms if these agree, or from the innermost config of the layer or a module
    around it that has a ``hidden_size``.

    Raises:
        ValueError: If none of them gives it, or norms and config differ; the message shows the call
            that works.
    """
    norms = {_norm_width(module) for module in layer.modules()} - {None}
    inner = norms.pop() if len(norms) == 1 else None
    configs = [getattr(m, "config", None) for m in (layer, *around(model, name).values())]
    sizes = [getattr(config, "hidden_size", None) for config in configs]
    hidden = next((size for size in sizes if isinstance(size, int)), None)
    # The norms may be of heads or of the input, whose width is not that of the output.
    agree = inner is None or hidden in (None, inner)
    for dim in (_width(layer), *((inner, hidden) if agree else ())):
        if isinstance(dim, int):
            return dim
    raise ValueError(
        f"filter {filter!r} needs dim, the embedding dimensions, which cannot be read from the "
        f"layer {name!r} ({type(layer).__name__}); pass it: "
        f"insert_filters(model, {name!r}, {filter!r}, dim=...)"
    )


def _width(layer: nn.Module) -> Any:
    """Output width of a layer without layers inside."""
    for attribute in ("out_features", "out_channels", "embedding_dim"):
        if hasattr(layer, attribute):
            return getattr(layer, attribute)
    return _norm_width(layer)


def _norm_width(module: nn.Module) -> int | None:
    """Width of a norm over the last axis: LayerNorm, RMSNorm and their variants."""
    weight = getattr(module, "weight", None)
    shape = getattr(module, "normalized_shape", None)
    if shape is None and "Norm" in type(module).__name__ and isinstance(weight, torch.Tensor):
        shape = weight.shape
    if isinstance(shape, int):  # as of the norms of I-BERT
        return shape
    return int(shape[0]) if shape is not None and len(shape) == 1 else None
