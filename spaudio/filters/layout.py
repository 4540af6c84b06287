"""Layout of the tokens that a layer of another library returns, and its padding mask."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

#: ``(x, padding_mask)`` to the filtered tokens: a ``TokenFilter``.
Filter = Callable[[Tensor, Tensor | None], Tensor]
# By priority: the first that the layer takes and that is not None is read.
PADDING_ARGUMENTS = ("src_key_padding_mask", "key_padding_mask", "padding_mask", "attention_mask")
# Of additive masks: torchaudio uses -1e4, others -inf or the minimum of the dtype.
MASKED_BELOW = -9_999.0


@dataclass(frozen=True)
class Layout:
    """Axes of a layer's output, and the arguments that may hold its padding mask.

    Attributes:
        batch_first: (batch, tokens, dim) if True, (tokens, batch, dim) if not.
        channels_first: (batch, dim, tokens) if True; ``batch_first`` is then ignored.
        padding: Names and positions of the arguments.
    """

    batch_first: bool = True
    channels_first: bool = False
    padding: tuple[tuple[str, int], ...] = ()

    def apply(
        self, filter: Filter, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Filters the output of a layer that was called with ``args`` and ``kwargs``.

        It may be a tensor, or a tuple or list whose first item is a tensor.

        Raises:
            TypeError: If the output is of another type.
            ValueError: If a shape or a padding mask does not fit.
        """
        if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
            first = self.apply(filter, output[0], args, kwargs)
            if hasattr(output, "_replace"):
                return type(output)(first, *output[1:])
            return type(output)([first, *output[1:]])
        if not isinstance(output, Tensor):
            raise TypeError(
                "a filter can follow a layer that returns a tensor or a tuple that begins with "
                f"one; this layer returned {type(output).__name__}"
            )
        if output.is_nested:
            return _apply_nested(filter, output)
        if output.dim() != 3:
            raise ValueError(
                f"a filter needs three axes, such as (batch, tokens, dim); the layer returned "
                f"shape {tuple(output.shape)}"
            )
        tokens = self._swap(output)
        given = ((n, kwargs.get(n, args[i] if i < len(args) else None)) for n, i in self.padding)
        masks = (read_padding_mask(n, v) for n, v in given if isinstance(v, Tensor))
        mask = next(masks, None)
        if mask is not None:
            mask = mask.expand(len(tokens), -1)
        return self._swap(filter(tokens, mask))

    def config(self) -> dict[str, Any]:
        """The layout as plain JSON values."""
        return asdict(self) | {"padding": [list(argument) for argument in self.padding]}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Layout:
        """The layout of a :meth:`config`."""
        padding = tuple((str(name), int(position)) for name, position in config["padding"])
        return cls(bool(config["batch_first"]), bool(config["channels_first"]), padding)

    def _swap(self, x: Tensor) -> Tensor:
        """Converts to (batch, tokens, dim) or back, which is the same swap of two axes."""
        if self.channels_first:
            return x.transpose(1, 2)
        return x if self.batch_first else x.transpose(0, 1)


def padding_arguments(
    forward: Callable[..., Any], padding_mask: str | None
) -> tuple[tuple[str, int], ...]:
    """Names and positions of the arguments of a layer's ``forward`` that may be a padding mask.

    Raises:
        ValueError: If the layer takes no argument of that name.
    """
    if padding_mask is None:
        return ()
    parameters = list(inspect.signature(forward).parameters)
    if padding_mask == "auto":
        return tuple((n, parameters.index(n)) for n in PADDING_ARGUMENTS if n in parameters)
    if padding_mask not in parameters:
        raise ValueError(f"the layer has no argument {padding_mask!r}; it takes {parameters}")
    return ((padding_mask, parameters.index(padding_mask)),)


def read_padding_mask(name: str, value: Tensor) -> Tensor:
    """Converts a layer's mask to (batch, tokens), True where a token is padding.

    Three conventions are supported:

    - ``*padding_mask`` (batch, tokens): True, or very negative, at padding;
    - ``attention_mask`` (batch, tokens): False or zero at padding;
    - any name, (batch, heads, queries, keys): False, or very negative, where a query may not attend
      to a key. The row of the last query is read, as it attends to all tokens but padding.

    Raises:
        ValueError: If the mask fits none of them.
    """
    additive = value.is_floating_point()
    if value.dim() == 2 and name != "attention_mask":
        return value < MASKED_BELOW if additive else value.bool()
    if value.dim() == 2 and not additive:
        return ~value.bool()
    if value.dim() == 4:
        last = value[:, 0, -1]
        return last < MASKED_BELOW if additive else ~last.bool()
    raise ValueError(
        f"cannot read padding from {name} of shape {tuple(value.shape)} and type {value.dtype}; "
        "name another argument with padding_mask=, or pass padding_mask=None to ignore it"
    )


def _apply_nested(filter: Filter, output: Tensor) -> Tensor:
    """Filters a nested tensor, to which ``nn.TransformerEncoder`` converts padded input in eval."""
    lengths = torch.tensor([len(item) for item in output.unbind()], device=output.device)
    padded = output.to_padded_tensor(0.0)
    mask = torch.arange(padded.shape[1], device=output.device) >= lengths.unsqueeze(1)
    items = zip(filter(padded, mask), lengths.tolist(), strict=True)
    return torch.nested.as_nested_tensor([item[:length] for item, length in items])
