"""A convolutional stem that turns frames into token features, before the transformer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvStem(nn.Module):
    """3×3 convolutions over the plane of frames and bands, each with batch norm and GELU.

    Every convolution halves the bands. The first ones halve the frames too, until one frame per
    token is left. Small transformers learn better from such features than from the frames
    themselves (arXiv 2106.14881; for audio EAT, arXiv 2204.11479).

    Padding is exact: a clip gives the same features alone and in a padded batch. Padded tokens are
    zero at the input of every convolution, like its own zero padding, and batch statistics leave
    their frames out.

    Args:
        bands: Bands per frame.
        stack: Frames per token; a power of two, at most 2 to the number of convolutions.
        channels: Output channels of each convolution.

    Raises:
        ValueError: If ``stack`` does not fit the number of convolutions.
    """

    def __init__(self, bands: int, stack: int, channels: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        halvings = stack.bit_length() - 1
        if stack != 1 << halvings or halvings > len(channels):
            raise ValueError(
                f"stack must be a power of two up to {1 << len(channels)}, one halving per "
                f"convolution; got {stack}"
            )
        self.bands, self.stack = bands, stack
        self.time_strides = [2] * halvings + [1] * (len(channels) - halvings)
        self.convolutions = nn.ModuleList()
        before = 1
        for after, stride in zip(channels, self.time_strides, strict=True):
            # A stride of 2 over a single band changes nothing, but on CPUs torch 2.14 then returns
            # gradients in bf16 that it has not computed.
            strides = (stride, min(bands, 2))
            convolution = nn.Conv2d(before, after, 3, stride=strides, padding=1, bias=False)
            self.convolutions.append(convolution)
            before, bands = after, -(-bands // 2)
        self.norms = nn.ModuleList(MaskedBatchNorm(width) for width in channels)
        self.features = bands * before

    @property
    def receptive_field(self) -> int:
        """Frames that one token sees."""
        field, step = 1, 1
        for stride in self.time_strides:
            field += 2 * step
            step *= stride
        return field

    def forward(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Turns stacked frames into features.

        Args:
            tokens: (batch, tokens, stack * bands).
            padding_mask: Boolean (batch, tokens), True where a token is padding.

        Returns:
            (batch, tokens, features).
        """
        if padding_mask is not None:  # padding of normalised or augmented tokens may be nonzero
            tokens = tokens.masked_fill(padding_mask.unsqueeze(-1), 0)
        # (batch, frames, bands, 1), without a `reshape`, which torch.export would guard.
        x: Tensor = torch.unflatten(tokens, 2, (self.stack, self.bands, 1)).flatten(1, 2)
        # With one channel, only these strides make the convolution use channels-last.
        x = x.permute(0, 3, 1, 2)  # (batch, 1, frames, bands)
        kept = None if padding_mask is None else ~padding_mask.repeat_interleave(self.stack, dim=1)
        for convolution, norm, stride in zip(
            self.convolutions, self.norms, self.time_strides, strict=True
        ):
            x = convolution(x)
            if kept is not None:
                kept = kept[:, ::stride]  # output i is centred on frame i * stride
            x = norm(x.permute(0, 2, 3, 1), kept).permute(0, 3, 1, 2)
        return x.permute(0, 2, 3, 1).flatten(2)


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm and GELU over (batch, frames, bands, channels), ignoring padded frames."""

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Normalises, activates, and sets padded frames to zero.

        Args:
            x: (batch, frames, bands, channels).
            kept: Boolean (batch, frames), False where a frame is padding; None keeps all.
        """
        if not self.training:
            assert self.running_mean is not None
            assert self.running_var is not None
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            y = F.gelu(x * scale + (self.bias - self.running_mean * scale))
            return y if kept is None else y * kept[..., None, None]
        rows = x.flatten(0, 1)
        where = None if kept is None else kept.flatten().nonzero().flatten()
        if where is None or len(where) == len(rows):
            where = None  # nothing is padded
        else:
            rows = rows.index_select(0, where)
        # A channels-last image of one row, which has a fast kernel.
        image = rows.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        image = F.batch_norm(
            image, self.running_mean, self.running_var, self.weight, self.bias,
            image.shape[2] > 1,  # a single value has no variance
            self.momentum or 0.1, self.eps,
        )  # fmt: skip
        y = F.gelu(image.permute(0, 2, 3, 1).reshape(rows.shape))
        if where is not None:
            y = y.new_zeros(x.shape[0] * x.shape[1], *y.shape[1:]).index_copy(0, where, y)
        return y.reshape(x.shape)
