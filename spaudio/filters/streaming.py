"""Runs causal filters on tokens as they arrive."""

from torch import Tensor

from spaudio.filters.arguments import check_device, check_tokens
from spaudio.filters.base import TokenFilter
from spaudio.filters.precision import join


class FilterStream:
    """Runs a causal filter on tokens as they arrive; the results equal those of the whole sequence.

    It keeps the last K - 1 tokens. For an adaptive filter it also keeps the keys and values of the
    mask's attention, which grow with the stream. Streams of one filter are independent. Padding is
    not supported. Use ``torch.no_grad()``: gradients reach all earlier tokens, so memory grows.

    Args:
        filter: A causal filter, or any other that sees no future tokens.

    Raises:
        ValueError: If it is no filter, or sees future tokens.
    """

    def __init__(self, filter: TokenFilter) -> None:
        if not isinstance(filter, TokenFilter):
            raise ValueError(f"a stream needs a filter; got {type(filter).__name__}")
        if filter.receptive_field[1] > 0:
            raise ValueError(
                f"filter {filter.name!r} is not causal: its output depends on future tokens; "
                "stream one made with causal=True"
            )
        self.filter = filter
        self.reset()

    def reset(self) -> None:
        """Starts a new sequence."""
        self._past: Tensor | None = None
        self._memory = self.filter.new_memory()

    def step(self, x: Tensor) -> Tensor:
        """Filters the next tokens.

        Args:
            x: (batch, tokens, dim), one token or more.

        Returns:
            (batch, tokens, dim), filtered, with the residual.

        Raises:
            ValueError: If a shape does not fit the filter, or batch, dim, dtype or device differ
                from those of the earlier tokens.
        """
        check_tokens(x, None, self.filter.dim)
        left, _ = self.filter.extent
        past = x.new_zeros(x.shape[0], left, x.shape[2]) if self._past is None else self._past
        if (past.shape[0], past.shape[2], past.dtype) != (x.shape[0], x.shape[2], x.dtype):
            raise ValueError(
                f"tokens of shape {tuple(x.shape)} and {x.dtype} do not continue a stream of batch "
                f"{past.shape[0]}, dim {past.shape[2]} and {past.dtype}; call reset() to start "
                "another"
            )
        check_device(x, past, "the earlier tokens of the stream")
        if self._memory is None and self.filter._forward_pre_hooks:  # may prepare its weights
            y: Tensor
            y, self._past = self.filter(x, initial_state=past, output_final_state=True)
            return y
        window = join([past, x], 1)
        y = x + self.filter.resume(window, self._memory)
        # A copy: a view would keep the whole window in memory.
        self._past = window[:, window.shape[1] - left :].clone()
        return y
