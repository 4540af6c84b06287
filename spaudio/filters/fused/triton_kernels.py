"""Triton kernels of the filterbank: tensor-core products over tiles that stay on the chip.

A tile is T consecutive tokens of one signal, which is one dimension of one batch item. Its windows
(T, K) times the kernels of a block of filters (K, B) are the responses (T, B). They are rectified,
weighted and summed in registers, and recomputed in the backward pass. Taps are processed in blocks
of C; most banks have one block. ``x`` is (batch, dim, tokens), so that windows are contiguous.
There are no atomics: each output is written by one program, so the same input gives the same bits.
"""

import triton
import triton.language as tl


@triton.jit
def _windows(x, signal, t, first, left, tokens, taps: tl.constexpr, c: tl.constexpr):
    """(T, C): inputs of the taps from ``first`` on at tokens ``t``; zero outside."""
    k = first + tl.arange(0, c)
    seen = t[:, None] + k[None, :] - left
    inside = (seen >= 0) & (seen < tokens) & (t >= 0)[:, None] & (t < tokens)[:, None]
    # Taps past the last one read zeros, as zero times NaN would be NaN.
    return tl.load(x + signal * tokens + seen, inside & (k < taps)[None, :], other=0.0)


@triton.jit
def _taps(kernels, m, first, filters, taps: tl.constexpr, c: tl.constexpr):
    """(C, B): taps from ``first`` on of the filters ``m``."""
    k = first + tl.arange(0, c)
    inside = (k < taps)[:, None] & (m < filters)[None, :]
    return tl.load(kernels + m[None, :] * taps + k[:, None], inside, other=0.0)


@triton.jit
def _respond(
    x, signal, t, left, tokens, windows, kernels, m, filters,
    taps: tl.constexpr, c: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """(T, B): filter outputs before the activation; ``windows`` are those of the first C taps."""
    weights = _taps(kernels, m, 0, filters, taps, c)
    response = tl.dot(windows, weights, input_precision=precision)
    for first in range(c, taps, c):
        more = _windows(x, signal, t, first, left, tokens, taps, c)
        weights = _taps(kernels, m, first, filters, taps, c)
        response = tl.dot(more, weights, response, input_precision=precision)
    return response


@triton.jit
def _gains(gains, b, d, t, m, tokens, dim, filters, stride, rank: tl.constexpr):
    """(1, B) or (T, B): gains of the filters ``m``; ``stride`` is the distance between rows."""
    if rank == 3:
        rows = (b * tokens + t) * stride
        inside = (t >= 0)[:, None] & (t < tokens)[:, None] & (m < filters)[None, :]
        weights = tl.load(gains + rows[:, None] + m[None, :], inside, other=0.0)
    else:
        row = gains + (d * stride if rank == 2 else 0)
        weights = tl.load(row + m, m < filters, other=0.0)[None, :]
    return weights


@triton.jit
def _activate(r, activation: tl.constexpr):
    if activation == "relu":
        return tl.where(r <= 0.0, 0.0, r)  # a maximum would lose a NaN
    if activation == "gelu":
        return 0.5 * r * (1.0 + tl.erf(r * 0.7071067811865476))
    return r


@triton.jit
def _activate_backward(grad, r, activation: tl.constexpr):
    if activation == "relu":
        return tl.where(r <= 0.0, 0.0, grad)
    if activation == "gelu":
        cumulative = 0.5 * (1.0 + tl.erf(r * 0.7071067811865476))
        return grad * (cumulative + r * tl.exp(-0.5 * r * r) * 0.3989422804014327)
    return grad


@triton.jit
def forward(
    x, kernels, gains, y, tokens, dim, filters, left, gain_stride,
    taps: tl.constexpr, rank: tl.constexpr, activation: tl.constexpr, precision: tl.constexpr,
    add: tl.constexpr, tile: tl.constexpr, block: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """One tile of ``y`` (batch, tokens, dim), float32, per program; adds to it if ``add``."""
    tiles = tl.cdiv(tokens, tile)
    signal = tl.program_id(0).to(tl.int64) // tiles
    b, d = signal // dim, signal % dim
    t = tl.program_id(0) % tiles * tile + tl.arange(0, tile)
    windows = _windows(x, signal, t, 0, left, tokens, taps, c)
    total = tl.zeros((tile,), tl.float32)
    for m_first in range(0, filters, block):
        m = m_first + tl.arange(0, block)
        response = _respond(
            x, signal, t, left, tokens, windows, kernels, m, filters, taps, c, precision
        )
        weights = _gains(gains, b, d, t, m, tokens, dim, filters, gain_stride, rank)
        total += tl.sum(_activate(response, activation) * weights, 1)
    target = y + (b * tokens + t) * dim + d
    if add:
        total += tl.load(target, t < tokens, other=0.0)
    tl.store(target, total, t < tokens)


@triton.jit
def backward_signal(
    grad, x, kernels, gains, grad_x, stride_b, stride_t, stride_d,
    tokens, dim, filters, left, gain_stride,
    taps: tl.constexpr, rank: tl.constexpr, activation: tl.constexpr, precision: tl.constexpr,
    add: tl.constexpr, tile: tl.constexpr, block: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """The gradient of ``x``, as (batch, tokens, dim), float32; strides are those of ``grad``.

    A program computes the T - K + 1 tokens (with several blocks of taps T - C + 1) that only
    responses in its tile depend on. It sums the gradient of the tile's windows along diagonals.
    """
    reach: tl.constexpr = taps if taps < c else c
    yields: tl.constexpr = tile - reach + 1
    tiles = tl.cdiv(tokens, yields)
    signal = tl.program_id(0).to(tl.int64) // tiles
    b, d = signal // dim, signal % dim
    row = tl.arange(0, tile)
    column = tl.arange(0, c)[None, :]
    s_first = tl.program_id(0) % tiles * yields
    total = tl.zeros((tile,), tl.float32)
    for k_first in range(0, taps, c):
        # Tap k of the response at t reads the token s = t + k - left.
        t = s_first + left - k_first - (reach - 1) + row
        inside = (t >= 0) & (t < tokens)
        source = grad + b * stride_b + t.to(tl.int64) * stride_t + d * stride_d
        grad_y = tl.load(source, inside, other=0.0).to(tl.float32)[:, None]
        windows = _windows(x, signal, t, 0, left, tokens, taps, c)
        grad_windows = tl.zeros((tile, c), tl.float32)
        for m_first in range(0, filters, block):
            m = m_first + tl.arange(0, block)
            response = _respond(
                x, signal, t, left, tokens, windows, kernels, m, filters, taps, c, precision
            )
            weights = _gains(gains, b, d, t, m, tokens, dim, filters, gain_stride, rank)
            grad_response = _activate_backward(grad_y * weights, response, activation)
            transposed = tl.trans(_taps(kernels, m, k_first, filters, taps, c))
            grad_windows = tl.dot(
                grad_response.to(windows.dtype), transposed, grad_windows, input_precision=precision
            )
        diagonal = row[:, None] + (reach - 1) - column
        within = (column < reach) & (diagonal < tile)
        skewed = tl.gather(grad_windows, tl.where(within, diagonal, 0), 0)
        total += tl.sum(tl.where(within, skewed, 0.0), 1)
    s = s_first + row
    written = (row < yields) & (s < tokens)
    target = grad_x + (b * tokens + s) * dim + d
    if add:
        total += tl.load(target, written, other=0.0)
    tl.store(target, total, written)


@triton.jit
def backward_bank(
    grad, x, kernels, gains, grad_kernels, grad_gains, stride_b, stride_t, stride_d,
    groups, members, tokens, dim, filters, left, gain_stride,
    taps: tl.constexpr, rank: tl.constexpr, activation: tl.constexpr, precision: tl.constexpr,
    want_kernels: tl.constexpr, want_gains: tl.constexpr,
    tile: tl.constexpr, block: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """Partial gradients of ``kernels`` and ``gains``, float32, per program.

    Tiles are grouped by the row of the gains' gradient: for gains (batch, tokens, M) a group is a
    span of tokens and its members are the dimensions; else a group is a dimension and its members
    are the spans. The grid is (workers, blocks of filters * splits, blocks of taps): worker w of
    split s processes the groups w, w + workers, ... and, in each, the members s, s + splits, ...

    ``grad_kernels`` is (splits, workers, M, K), ``grad_gains`` (splits, batch, tokens, M) or
    (splits, dim, M); the caller sums both.
    """
    workers = tl.num_programs(0)
    blocks = tl.cdiv(filters, block)
    split, splits = tl.program_id(1) // blocks, tl.num_programs(1) // blocks
    m = tl.program_id(1) % blocks * block + tl.arange(0, block)
    k_first = tl.program_id(2) * c
    tiles = tl.cdiv(tokens, tile)
    rows = groups if rank < 3 else groups // tiles * tokens
    grad_gains += split.to(tl.int64) * rows * filters
    kernel_sum = tl.zeros((block, c), tl.float32)
    for group in range(tl.program_id(0), groups, workers):
        gain_sum = tl.zeros((tile if rank == 3 else 1, block), tl.float32)
        for member in range(split, members, splits):
            span = group if rank == 3 else member
            b = (span // tiles).to(tl.int64)
            t = span % tiles * tile + tl.arange(0, tile)
            signal = b * dim + (member if rank == 3 else group)
            d = signal - b * dim  # in 64 bits
            source = grad + b * stride_b + t.to(tl.int64) * stride_t + d * stride_d
            grad_y = tl.load(source, t < tokens, other=0.0).to(tl.float32)[:, None]
            first = _windows(x, signal, t, 0, left, tokens, taps, c)
            response = _respond(
                x, signal, t, left, tokens, first, kernels, m, filters, taps, c, precision
            )
            if want_gains:
                share = _activate(response, activation) * grad_y
                gain_sum += share if rank == 3 else tl.sum(share, 0)[None, :]
            if want_kernels:
                weights = _gains(gains, b, d, t, m, tokens, dim, filters, gain_stride, rank)
                grad_response = _activate_backward(grad_y * weights, response, activation)
                windows = first
                if c < taps:
                    windows = _windows(x, signal, t, k_first, left, tokens, taps, c)
                kernel_sum = tl.dot(
                    tl.trans(grad_response.to(windows.dtype)),
                    windows,
                    kernel_sum,
                    input_precision=precision,
                )
        # Programs of the other blocks of taps compute the same sum.
        if want_gains and k_first == 0:
            if rank == 3:
                t = group % tiles * tile + tl.arange(0, tile)
                row = (group // tiles).to(tl.int64) * tokens + t
                inside = (t < tokens)[:, None] & (m < filters)[None, :]
            else:
                row = tl.zeros((1,), tl.int64) + group
                inside = (m < filters)[None, :]
            tl.store(grad_gains + row[:, None] * filters + m[None, :], gain_sum, inside)
    if want_kernels:
        k = k_first + tl.arange(0, c)
        slot = (split.to(tl.int64) * workers + tl.program_id(0)) * filters
        target = grad_kernels + (slot + m[:, None]) * taps + k[None, :]
        tl.store(target, kernel_sum, (m < filters)[:, None] & (k < taps)[None, :])
