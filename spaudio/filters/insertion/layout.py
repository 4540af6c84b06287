"""Layout of the tokens that a layer of another library returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

#: Maps ``(x, padding_mask)`` to the filtered tokens. The mask is None if the layer gives none.
Filter = Callable[[Tensor, Tensor | None], Tensor]


#: Computes the padding mask (batch, tokens) of a call from the arguments of the model, by name.
PaddingFunction = Callable[[dict[str, Any]], Tensor | None]


def unsaved_function(arguments: dict[str, Any]) -> Tensor | None:
    """Stands for the padding function of saved filters, which is not saved with them."""
    raise ValueError("the filters were saved without their padding function")


@dataclass(frozen=True)
class Layout:
    """Axes of a layer's output, and where its padding mask is found.

    Attributes:
        batch_first: (batch, tokens, dim) if True, (tokens, batch, dim) if not.
        channels_first: (batch, dim, tokens) if True; ``batch_first`` is then ignored.
        padding_mask: As for :func:`spaudio.filters.insert_filters`.
    """

    batch_first: bool
    channels_first: bool
    padding_mask: str | PaddingFunction | None

    def apply(self, filter: Filter, output: Any, layer: str) -> Any:
        """Filters the output of a layer, whose name is for errors.

        It may be a tensor, or a tuple or list whose first item is a tensor.

        Raises:
            TypeError: If the output is of another type.
            ValueError: If a shape does not fit, or the output is nested and its channels are first.
        """
        if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
            first = self.apply(filter, output[0], layer)
            if hasattr(output, "_replace"):
                return type(output)(first, *output[1:])
            return type(output)([first, *output[1:]])
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            if isinstance(output, tuple | list):
                kind += (
                    f" that begins with {type(output[0]).__name__}" if output else " of length 0"
                )
            raise TypeError(
                "a filter can follow a layer that returns a tensor, or a tuple that begins with "
                f"one; layer {layer!r} returned a {kind}. Name a layer inside it that returns the "
                "tokens"
            )
        if output.is_nested:
            if self.channels_first:
                raise ValueError(
                    f"layer {layer!r} returned a nested tensor, which channels_first=True does not "
                    "support; name a layer that returns items (tokens, dim), or pass tensors that "
                    "are padded instead of nested"
                )
            return _apply_nested(filter, output)
        if output.dim() != 3:
            raise ValueError(
                f"a filter needs three axes, such as (batch, tokens, dim); layer {layer!r} "
                f"returned shape {tuple(output.shape)}. Name a layer whose output has them"
            )
        filtered = self._swap(filter(self._swap(output), None))
        # The model may take views of what was contiguous.
        return filtered.contiguous() if output.is_contiguous() else filtered

    def config(self) -> dict[str, Any]:
        """The layout as plain JSON values, without a padding function."""
        config = asdict(self)
        if callable(self.padding_mask):
            config["padding_mask"] = {"function": True}
        return config

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Layout:
        """Rebuilds a layout from its :meth:`config`."""
        name = config["padding_mask"]
        padding_mask = unsaved_function if isinstance(name, dict) else name and str(name)
        return cls(bool(config["batch_first"]), bool(config["channels_first"]), padding_mask)

    def _swap(self, x: Tensor) -> Tensor:
        """Converts to (batch, tokens, dim) or back, which is the same swap of two axes."""
        if self.channels_first:
            return x.transpose(1, 2)
        return x if self.batch_first else x.transpose(0, 1)


def _apply_nested(filter: Filter, output: Any) -> Tensor:
    """Filters a nested tensor, to which ``nn.TransformerEncoder`` converts padded input in eval."""
    lengths = torch.tensor([len(item) for item in output.unbind()], device=output.device)
    padded = output.to_padded_tensor(0.0)
    mask = torch.arange(padded.shape[1], device=output.device) >= lengths.unsqueeze(1)
    pairs = zip(filter(padded, mask), lengths.tolist(), strict=True)
    items = [item[:length] for item, length in pairs]
    if output.layout == torch.jagged and output.lengths() is None:
        # With the same offsets, the result can be added to the layer's input.
        return torch.nested.nested_tensor_from_jagged(torch.cat(items), output.offsets())
    return torch.nested.as_nested_tensor(items, layout=output.layout)
