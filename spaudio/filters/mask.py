"""A small transformer that predicts the mask of an adaptive filterbank, token by token."""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaudio.filters.arguments import check_size
from spaudio.filters.tracing import is_transformed
from spaudio.filters.transformer import KeyValueCache, TransformerLayer, causal_mask, rotary

MLP_RATIO = 4


class MaskPredictor(nn.Module):
    """Maps tokens to a mask in (0, 1): projection, pre-norm transformer, sigmoid.

    Positions are rotary, hence relative: a mask shifts with its tokens, and a stream may be of any
    length.

    Args:
        dim: Embedding dimension of the tokens.
        num_filters: M, the width of the mask.
        width: Dimensions of the transformer.
        layers: Number of its layers.
        heads: Number of its attention heads.
        causal: Whether a token sees only itself and the past.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a size is below 1, or ``width`` is not a multiple of ``2 * heads``.
    """

    def __init__(
        self,
        dim: int,
        num_filters: int,
        *,
        width: int,
        layers: int,
        heads: int,
        causal: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size(dim=dim, num_filters=num_filters)
        check_size(mask_width=width, mask_layers=layers, mask_heads=heads)
        if width % (2 * heads):
            raise ValueError(
                f"mask_width must be a multiple of 2 * mask_heads; got mask_width={width}, "
                f"mask_heads={heads}"
            )
        self.width, self.heads, self.causal = width, heads, causal
        self.embed = nn.Linear(dim, width, device=device, dtype=dtype)
        self.layers = nn.ModuleList(
            TransformerLayer(
                width, heads, ff_mult=MLP_RATIO, bias=False, device=device, dtype=dtype
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, device=device, dtype=dtype)
        self.open = nn.Linear(width, num_filters, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters; the values of the mask start near 0.5."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
        nn.init.zeros_(self.open.bias)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Predicts the mask (batch, tokens, M), with values in (0, 1).

        Args:
            x: Tokens (batch, tokens, dim), zero where they are padding.
            padding_mask: True where a token is padding, which is not attended to.
            cache: State of a stream, extended in place. Needs a causal predictor and no padding.
        """
        tokens = x.shape[1]
        start = 0 if cache is None else cache.tokens
        attend = causal_mask(tokens, start, device=x.device) if self.causal else None
        if padding_mask is not None:
            real = ~padding_mask[:, None, None, :]
            # A padded token attends to itself: a row without any key would yield NaN.
            positions = torch.arange(tokens, device=x.device)
            itself = positions == positions.unsqueeze(1)
            attend = (real if attend is None else attend & real) | itself
        dtype = torch.promote_types(x.dtype, torch.float32)
        rotation = rotary(tokens, self.width // self.heads, start, device=x.device, dtype=dtype)
        h = self.embed(x)
        # The fast kernels have no forward-mode derivative.
        with sdpa_kernel(SDPBackend.MATH) if is_transformed() else nullcontext():
            for index, layer in enumerate(self.layers):
                extend = None if cache is None else partial(cache.extend, index)
                h = layer(h, attend, rotation, extend=extend)
        if cache is not None:
            cache.tokens += tokens
        return torch.sigmoid(self.open(self.norm(h)))

    def flops(self, tokens: int, dim: int) -> int:
        """Floating-point operations over one sequence: matrix products and attention.

        Causal attention counts only the pairs of tokens that are not masked.
        """
        pairs = tokens * (tokens + 1) // 2 if self.causal else tokens * tokens
        in_out = dim * self.width + self.width * self.open.out_features
        layer = tokens * (4 + 2 * MLP_RATIO) * self.width**2 + 2 * pairs * self.width
        return 2 * (tokens * in_out + len(self.layers) * layer)
