"""How a foreign layer lays out its tokens and says which of them are padding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.base import TokenFilter

# In order of trust: the first that a layer takes and that is not None is read.
PADDING_ARGUMENTS = ("src_key_padding_mask", "key_padding_mask", "padding_mask", "attention_mask")
# Additive masks: torchaudio writes -1e4, others -inf or the least value of the type.
MASKED_BELOW = -9_999.0


@dataclass(frozen=True)
class Layout:
    """What a filter must know of the layer it follows.

    Attributes:
        batch_first: (batch, tokens, dim) if True, (tokens, batch, dim) if not.
        channels_first: (batch, dim, tokens) if True, whatever ``batch_first`` says.
        padding: Arguments of the layer, and their positions, that may hold a padding mask.
    """

    batch_first: bool = True
    channels_first: bool = False
    padding: tuple[tuple[str, int], ...] = ()

    def apply(
        self, filter: TokenFilter, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Filters what a layer returned.

        Args:
            filter: The filter.
            output: A tensor, or a tuple or list whose first item is one.
            args: The layer's positional arguments, where a padding mask is looked for.
            kwargs: Its keyword arguments.

        Returns:
            The like of ``output``.

        Raises:
            TypeError: If the output is neither.
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
        mask = self._padding_mask(args, kwargs, tokens.shape[0])
        return self._swap(filter(tokens, mask))

    def config(self) -> dict[str, Any]:
        """The layout as plain JSON values."""
        return asdict(self) | {"padding": [list(argument) for argument in self.padding]}

    def _swap(self, x: Tensor) -> Tensor:
        """To (batch, tokens, dim) or back: each layout differs by one swap of axes."""
        if self.channels_first:
            return x.transpose(1, 2)
        return x if self.batch_first else x.transpose(0, 1)

    def _padding_mask(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], batch: int
    ) -> Tensor | None:
        for name, position in self.padding:
            value = kwargs.get(name)
            if value is None and position < len(args):
                value = args[position]
            if isinstance(value, Tensor):
                return read_padding_mask(name, value).expand(batch, -1)
        return None


def padding_arguments(
    forward: Callable[..., Any], padding_mask: str | None
) -> tuple[tuple[str, int], ...]:
    """Arguments of a layer that may hold its padding mask, with their positions.

    Args:
        forward: The layer's bound method.
        padding_mask: Name of the argument, ``"auto"`` for the usual ones, None for none.

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
    """A layer's mask as (batch, tokens), True where a token is padding.

    Three conventions are read: a ``..padding_mask`` is True, or very negative, at padding; an
    ``attention_mask`` (batch, tokens) is True or non-zero where there is none; one of four axes
    (batch, heads, queries, keys) is False, or very negative, where a query may not see a key. Of
    the last, what the final query may not see counts as padding: it sees all tokens before it.

    Args:
        name: The argument's name, which tells the conventions apart.
        value: The argument.

    Raises:
        ValueError: If it fits none of them.
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
        f"cannot tell padding from {name} of shape {tuple(value.shape)} and type {value.dtype}; "
        "name another argument by padding_mask=, or pass padding_mask=None to ignore it"
    )


def _apply_nested(filter: TokenFilter, output: Tensor) -> Tensor:
    """Filters the nested tensor that ``nn.TransformerEncoder`` makes of padded input in eval."""
    lengths = torch.tensor([len(item) for item in output.unbind()], device=output.device)
    padded = output.to_padded_tensor(0.0)
    mask = torch.arange(padded.shape[1], device=output.device) >= lengths.unsqueeze(1)
    items = zip(filter(padded, mask), lengths.tolist(), strict=True)
    return torch.nested.as_nested_tensor([item[:length] for item, length in items])
