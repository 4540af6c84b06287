"""The filterbank in pure torch, for any device and dtype: matrix products over tiles.

P consecutive tokens of M filters are one product: the kernels, as a banded (M * P, L) matrix, times
a window of L tokens and all dimensions. This avoids copies of the K-token windows. A tile is a few
windows and fits in the cache; the backward pass recomputes it. Chunks of ``conv1d`` under
checkpointing need a quarter of the code, but 1.1 to 3.9 times the time on a CPU (median 2.1).

The zeros of the band are multiplied too, so a NaN or an infinity in ``x`` spreads to all P outputs
of each window that holds it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spaudio.filters.definition import ACTIVATIONS, kernel_extent
from spaudio.filters.fused.problem import Problem, only

# Bytes of a tile's time-frequency representation. A CPU core has 0.5-2 MiB of second-level cache,
# which also holds derived tensors; a GPU needs enough work per launch.
TILE_BYTES = {"cpu": 1 << 19}
TILE_BYTES_ELSEWHERE = 1 << 26


class _Scale:
    """One scale's kernels (M, K) as a banded matrix, and the windows of the signals ``x``.

    Tiles are pairs of slices: batch items and windows. All share one buffer: fresh pages would cost
    as much as the products.
    """

    def __init__(self, kernel: Tensor, x: Tensor, causal: bool) -> None:
        batch, tokens, self.dim = x.shape
        self.filters, self.taps = kernel.shape
        # P, output tokens per window. The band takes (P + K - 1) / K times the multiplications, but
        # fewer products: 8 was the fastest of 2, 4, 8 and 16 for K from 8 to 32.
        self.hop = max(1, min(self.taps // 2, 8))
        self.windows = -(-tokens // self.hop)  # per signal
        self.overlap = -(-(self.hop + self.taps - 1) // self.hop)  # hops per window
        self.length = self.overlap * self.hop  # L, tokens per window
        self.left = kernel_extent(self.taps, causal)[0]
        total = (self.windows + self.overlap - 1) * self.hop
        # Contiguous, as `respond` assumes: nothing to pad would leave the strides of x.
        self.padded = F.pad(x, (0, 0, self.left, total - self.left - tokens)).contiguous()
        # Row (m, p) holds kernel m from column p on.
        band = kernel.new_zeros(self.filters, self.hop, self.length)
        self.diagonals(band).copy_(kernel.unsqueeze(1).expand(-1, self.hop, -1))
        self.band = band.view(self.filters * self.hop, -1)

        # Whole signals if they fit into a tile, else part of one.
        room = TILE_BYTES.get(kernel.device.type, TILE_BYTES_ELSEWHERE)
        count = max(1, room // (len(self.band) * self.dim * kernel.element_size()))
        items, windows = max(1, count // self.windows), min(count, self.windows)
        self.tiles = [
            (slice(b, min(b + items, batch)), slice(w, min(w + windows, self.windows)))
            for b in range(0, batch, items)
            for w in range(0, self.windows, windows)
        ]
        largest = min(items, batch) * windows
        self._response = x.new_empty(largest, len(self.band), self.dim)
        self._gradient: Tensor | None = None

    def diagonals(self, band: Tensor) -> Tensor:
        """View (M, P, K) of a contiguous band (M, P, L): its entries (m, p, p + k)."""
        strides = (self.hop * self.length, self.length + 1, 1)
        return band.as_strided((self.filters, self.hop, self.taps), strides)

    def in_hops(self, signal: Tensor) -> Tensor:
        """Reshapes (batch, tokens, C) to (batch, windows, P, C), with zeros at the end."""
        missing = self.windows * self.hop - signal.shape[1]
        return F.pad(signal, (0, 0, 0, missing)).view(len(signal), self.windows, self.hop, -1)

    def respond(self, tile: tuple[slice, slice]) -> tuple[Tensor, Tensor]:
        """A tile's windows (n, L, dim) and filter outputs (n, M, P, dim) before activation."""
        items, span = tile
        part = self.padded[items, span.start * self.hop :]
        item, token, _ = part.stride()
        shape = (len(part), span.stop - span.start, self.length, self.dim)
        windows = part.as_strided(shape, (item, self.hop * token, token, 1)).flatten(0, 1)
        product = self._response[: len(windows)]
        torch.bmm(self.band.expand(len(windows), -1, -1), windows, out=product)
        return windows, product.view(-1, self.filters, self.hop, self.dim)

    def gradient(self, grad: Tensor, factor: Tensor, response: Tensor, activation: str) -> Tensor:
        """Gradient (n, M, P, dim) of a tile's outputs before activation; ``grad`` (n, P, dim)."""
        if self._gradient is None:
            self._gradient = torch.empty_like(self._response)
        result = self._gradient[: len(response)].view_as(response)
        torch.mul(grad.unsqueeze(1), factor, out=result)
        if activation == "relu":
            torch.ops.aten.threshold_backward(result, response, 0, grad_input=result)
        elif activation == "gelu":
            torch.ops.aten.gelu_backward(result, response, grad_input=result)
        return result


class _Gains:
    """Gains of one scale as a factor of a tile (n, M, P, dim), and their gradient."""

    def __init__(self, gains: Tensor, scale: _Scale) -> None:
        self.rank = gains.dim()
        if self.rank == 1:
            self.values = gains.view(1, -1, 1, 1)
        elif self.rank == 2:
            self.values = gains.t().unsqueeze(1).unsqueeze(0)
        else:
            self.values = scale.in_hops(gains)
        self.gradient = torch.zeros_like(self.values)

    def factor(self, tile: tuple[slice, slice]) -> Tensor:
        if self.rank < 3:
            return self.values
        return self.values[tile].flatten(0, 1).transpose(1, 2).unsqueeze(-1)

    def weigh(self, response: Tensor, tile: tuple[slice, slice]) -> Tensor:
        """Weighted sum over the filters of a tile (n, M, P, dim): (n, P, dim)."""
        if self.rank == 1:
            n, filters, hop, dim = response.shape
            total = self.values.view(1, filters) @ response.reshape(n, filters, hop * dim)
            return total.view(n, hop, dim)
        return (response * self.factor(tile)).sum(1)

    def accumulate(self, response: Tensor, grad: Tensor, tile: tuple[slice, slice]) -> None:
        """Adds a tile's part to the gradient; ``grad`` is that of the sum, (n, P, dim)."""
        n, filters, hop, dim = response.shape
        if self.rank == 1:
            share = response.reshape(n, filters, hop * dim) @ grad.reshape(n, hop * dim, 1)
            self.gradient += share.sum(0).view(1, filters, 1, 1)
        elif self.rank == 2:
            self.gradient += (response * grad.unsqueeze(1)).sum((0, 2)).unsqueeze(1)
        else:
            share = (response * grad.unsqueeze(1)).sum(3).transpose(1, 2)
            self.gradient[tile] = share.reshape(self.gradient[tile].shape)

    def finish(self, tokens: int) -> Tensor:
        if self.rank == 1:
            return self.gradient.flatten()
        if self.rank == 2:
            return self.gradient[0, :, 0].t()
        return self.gradient.flatten(1, 2)[:, :tokens]


def forward(problem: Problem) -> Tensor:
    """Computes the result (batch, tokens, dim). All tensors have one dtype."""
    x = problem.mask(problem.x)
    y = torch.zeros_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return y
    for kernel, gains in problem.scales():
        scale = _Scale(kernel, x, problem.causal)
        weights = _Gains(gains, scale)
        for tile in scale.tiles:
            _, response = scale.respond(tile)
            share = weights.weigh(_activate(response, problem.activation), tile)
            start, stop = tile[1].start * scale.hop, tile[1].stop * scale.hop
            part = y[tile[0], start:stop]
            part += share.view(len(part), -1, scale.dim)[:, : part.shape[1]]
    return problem.mask(y)


def backward(
    grad: Tensor, problem: Problem, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes gradients of ``x``, of all kernels (flat) and of the gains.

    Those that are not ``wanted`` are not computed; they are empty.
    """
    grad, x = problem.mask(grad), problem.mask(problem.x)
    batch, tokens, dim = x.shape
    grad_x = torch.zeros_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        zeros = (grad_x, torch.zeros_like(problem.kernels), torch.zeros_like(problem.gains))
        return only(zeros, wanted)
    grad_kernels, grad_gains = [], []
    for kernel, gains in problem.scales():
        scale = _Scale(kernel, x, problem.causal)
        weights, grads = _Gains(gains, scale), scale.in_hops(grad)
        grad_band = torch.zeros_like(scale.band)
        grad_padded = torch.zeros_like(scale.padded).view(batch, -1, scale.hop, dim)
        for tile in scale.tiles:
            windows, response = scale.respond(tile)
            grad_y = grads[tile].flatten(0, 1)
            rows = scale.gradient(grad_y, weights.factor(tile), response, problem.activation)
            rows = rows.flatten(1, 2)
            if wanted[0]:
                items, span = tile
                parts = torch.matmul(scale.band.t(), rows).view(
                    -1, span.stop - span.start, scale.overlap, scale.hop, dim
                )
                for hop in range(scale.overlap):
                    grad_padded[items, span.start + hop : span.stop + hop] += parts[:, :, hop]
            if wanted[1]:
                grad_band += torch.bmm(rows, windows.transpose(1, 2)).sum(0)
            if wanted[2]:
                weights.accumulate(_activate(response, problem.activation), grad_y, tile)
        grad_kernels.append(scale.diagonals(grad_band).sum(1).flatten())
        grad_gains.append(weights.finish(tokens))
        grad_x += grad_padded.flatten(1, 2)[:, scale.left : scale.left + tokens]
    total = (problem.mask(grad_x), torch.cat(grad_kernels), torch.cat(grad_gains, dim=-1))
    return only(total, wanted)


def _activate(response: Tensor, activation: str) -> Tensor:
    """Activates a tile, in place where possible."""
    return response.relu_() if activation == "relu" else ACTIVATIONS[activation](response)
