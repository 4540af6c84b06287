"""A filterbank whose gains vary over tokens: arXiv 2406.10254, Fig. 2C."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from spaudio.filters.arguments import check_device, check_tokens
from spaudio.filters.bank import MultiScaleFilterBank, filterbank_window
from spaudio.filters.base import TokenFilter
from spaudio.filters.definition import without_padding
from spaudio.filters.functional import filterbank
from spaudio.filters.mask import MaskPredictor
from spaudio.filters.transformer import KeyValueCache


class AdaptiveFilterBank(TokenFilter):
    """A filterbank whose learned gains are multiplied by a mask predicted from the tokens.

    A time-varying filter, as in mask-based source separation (Conv-TasNet, arXiv 1809.07454): a
    small transformer reads the tokens and predicts a factor in (0, 1) for each token and filter.

    Second derivatives need PyTorch's math attention on CPUs; wrap the first derivative in
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Args:
        dim: Embedding dimension.
        num_filters: M of a single-scale bank.
        kernel_size: K of a single-scale bank, in tokens.
        scales: Pairs (num_filters, kernel_size) of a multi-scale bank, which replace the two above.
        mask_width: Dimensions of the mask's transformer.
        mask_layers: Number of its layers.
        mask_heads: Number of its attention heads.
        causal: Whether a token sees only itself and the past, in the bank and in the mask.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.
        init: Initialisation of the kernels, ``"random"`` or ``"bandpass"``.
        zero_init: Whether gains start at zero, which makes the module the identity at first.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a size is below 1, or an option is unknown, missing or does not fit.
    """

    name = "adaptive"

    def __init__(
        self,
        dim: int,
        num_filters: int = 36,
        kernel_size: int = 4,
        *,
        scales: Sequence[tuple[int, int]] | None = None,
        mask_width: int = 64,
        mask_layers: int = 1,
        mask_heads: int = 4,
        causal: bool = False,
        activation: str = "relu",
        init: str = "random",
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(causal=causal)
        self.dim = dim
        self.bank = MultiScaleFilterBank(
            [(num_filters, kernel_size)] if scales is None else scales,
            causal=causal,
            activation=activation,
            init=init,
            zero_init=zero_init,
            device=device,
            dtype=dtype,
        )
        self.mask = MaskPredictor(
            dim,
            self.bank.num_filters,
            width=mask_width,
            layers=mask_layers,
            heads=mask_heads,
            causal=causal,
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        """Resets the bank and the mask's transformer."""
        self.bank.reset_parameters()
        self.mask.reset_parameters()

    def token_mask(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Predicts the factors by which the gains of each token are multiplied.

        Args:
            x: (batch, tokens, dim).
            padding_mask: Boolean (batch, tokens), True where a token is padding.

        Returns:
            (batch, tokens, M), with values in (0, 1); meaningless at padded tokens.

        Raises:
            ValueError: If a shape, type or device does not fit.
        """
        check_tokens(x, padding_mask, self.dim)
        mask: Tensor = self.mask(self._as_weights(without_padding(x, padding_mask)), padding_mask)
        return mask

    @override
    def filtered(
        self, x: Tensor, padding_mask: Tensor | None = None, *, residual: bool = False
    ) -> Tensor:
        return filterbank(
            x,
            self.bank.taps(),
            self.bank.gains * self.token_mask(x, padding_mask),
            causal=self.causal,
            padding_mask=padding_mask,
            activation=self.bank.activation,
            residual=residual,
        )

    @override
    def convolve(self, window: Tensor) -> Tensor:
        raise NotImplementedError(
            f"the gains of filter {self.name!r} depend on all tokens, not on a window of them; "
            "call filtered() with all tokens, or use FilterStream"
        )

    @override
    def resume(self, window: Tensor, memory: KeyValueCache) -> Tensor:
        read = self._as_weights(window[:, self.extent[0] :])
        gains = self.bank.gains * self.mask(read, cache=memory)
        return filterbank_window(
            window, self.bank.taps(), gains, self.bank.activation, causal=self.causal
        )

    def _as_weights(self, x: Tensor) -> Tensor:
        """Casts tokens to the dtype of the mask's weights, as linear layers require.

        Raises:
            ValueError: If the weights are on another device than the tokens.
        """
        weight = self.mask.norm.weight
        check_device(x, weight, "the filter")
        return x.to(weight.dtype)

    @override
    def new_memory(self) -> KeyValueCache:
        return KeyValueCache(len(self.mask.layers))

    @override
    def taps(self) -> Sequence[Tensor]:
        return self.bank.taps()

    @override
    def after_taps(self) -> tuple[Tensor | None, str]:
        return self.bank.after_taps()  # the mask comes between activation and gains

    @property
    def receptive_field(self) -> tuple[float, float]:
        """Infinite on each side that the mask's attention sees.

        For the kernels alone, see ``extent``.
        """
        return math.inf, 0 if self.causal else math.inf

    @override
    def config(self) -> dict[str, Any]:
        bank = {k: v for k, v in self.bank.config().items() if k != "gains"}
        sizes = {"mask_width": self.mask.width, "mask_layers": len(self.mask.layers)}
        return bank | super().config() | sizes | {"dim": self.dim, "mask_heads": self.mask.heads}

    @override
    def flops(self, tokens: int, dim: int) -> int:
        return self.bank.flops(tokens, dim) + self.mask.flops(tokens, dim)
