"""How the cost of the filterbank grows with each dimension of its shape, in time and in memory.

The operator is compared with the same bank computed by FFT, whose cost does not depend on the
number of taps. Both are timed in turn, forward and backward pass. The operator is the native kernel
or, where that is missing, the tiled fallback, as the report says.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.bench.memory import peak_extra_bytes
from spaudio.bench.shapes import Shape

BASE = Shape("base", 4, 256, 128, ((144, 16),))
VALUES: dict[str, Sequence[int]] = {
    "tokens": (64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "kernels": (8, 16, 32, 64, 128, 256, 512, 1024),
    "taps": (4, 8, 16, 32, 64, 128, 256, 512),
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "threads": (1, 2),
}
COLUMNS = {
    "varied": "{axis}",
    "value": "{value:,}",
    "ms": "{ms:.2f}",
    "GFLOP/s": "{gflops:.0f}",
    "extra MiB": "{peak_extra_mib:.1f}",
    "FFT: times as slow": "{fft_times:.1f}",
}
_TOGETHER = 8  # kernels whose outputs the FFT holds at a time


def measure(axes: Sequence[str], rounds: int, limit: float) -> dict[str, Any]:
    """Varies one dimension at a time around 4 x 256 tokens of width 128 and 144 kernels of 16 taps.

    Args:
        axes: Keys of ``VALUES``.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds per shape after which no further round starts.

    Returns:
        ``machine`` and ``rows``. The FFT is timed only where taps vary. ``peak_extra_mib`` is the
        memory beyond arguments and results. A forward and backward pass counts as four products of
        all kernels with all windows.
    """
    threads = torch.get_num_threads()
    rows = []
    for axis in axes:
        for value in VALUES[axis]:
            torch.set_num_threads(value if axis == "threads" else threads)
            rows.append(_measure(axis, value, rounds, limit))
        torch.set_num_threads(threads)
    return {"machine": machine(), "rows": rows}


def filterbank_by_fft(x: Tensor, kernels: Tensor, gains: Tensor) -> Tensor:
    """Computes a centred bank with ReLU by FFT, as :func:`spaudio.filters.filterbank` defines it.

    Args:
        x: (batch, tokens, dim).
        kernels: (M, K).
        gains: (M,).

    Returns:
        (batch, tokens, dim). Outputs of eight kernels at a time are held in memory, and recomputed
        in the backward pass.
    """
    tokens, taps = x.shape[1], kernels.shape[1]
    size = 1 << (tokens + taps - 2).bit_length()
    spectrum = torch.fft.rfft(x, n=size, dim=1)

    def part(spectrum: Tensor, kernels: Tensor, gains: Tensor) -> Tensor:
        # conv1d is a correlation: the kernel is reversed in time.
        response = torch.fft.rfft(kernels.flip(-1), n=size)
        product = spectrum.unsqueeze(1) * response[None, :, :, None]
        outputs = torch.fft.irfft(product, n=size, dim=2)[:, :, taps // 2 :][:, :, :tokens]
        return torch.einsum("bmtd,m->btd", outputs.relu(), gains)

    y = torch.zeros_like(x)
    for first in range(0, len(kernels), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        added: Any = checkpoint(part, spectrum, kernels[some], gains[some], use_reentrant=False)
        y = y + added
    return y


def shape_of(axis: str, value: int) -> Shape:
    """Returns the base shape with one dimension changed."""
    ((kernels, taps),) = BASE.bank
    if axis == "tokens":
        return replace(BASE, tokens=value)
    if axis == "batch":
        return replace(BASE, batch=value)
    if axis == "kernels":
        return replace(BASE, bank=((value, taps),))
    return replace(BASE, bank=((kernels, value),)) if axis == "taps" else BASE


def _measure(axis: str, value: int, rounds: int, limit: float) -> dict[str, Any]:
    shape = shape_of(axis, value)
    functions: dict[str, Callable[[], object]] = {"operator": shape.step("auto")}
    if axis == "taps":
        functions["fft"] = _step_by_fft(shape)
    seconds = take_turns(functions, rounds, limit)
    median = statistics.median(seconds["operator"])
    memory = peak_extra_bytes("auto", shape)
    return {
        "axis": axis,
        "value": value,
        "shape": asdict(shape),
        "rounds": len(seconds["operator"]),
        "seconds": median,
        "gflops": 4 * shape.operations / median / 1e9,
        "peak_extra_mib": None if memory is None else memory / 2**20,
        "fft_times": ratio(seconds["fft"], seconds["operator"]) if "fft" in seconds else None,
    }


def _step_by_fft(shape: Shape) -> Callable[[], object]:
    x, (kernels,), gains, grad = shape.inputs()
    leaves = [x, kernels, gains]
    return lambda: torch.autograd.grad(filterbank_by_fft(*leaves), leaves, grad)


def plot(report: dict[str, Any], path: Path) -> None:
    """Plots time and memory over each dimension that was varied.

    Args:
        report: From :func:`measure`.
        path: PNG to write, 700 pixels wide.
    """
    from spaudio.report.figures.drawing import (  # the others need only torch
        make_figure,
        save_figure,
    )

    axes = list(dict.fromkeys(row["axis"] for row in report["rows"]))
    figure = make_figure(7, 0.4 + 2 * len(axes))
    for pair, axis in zip(figure.subplots(len(axes), 2, squeeze=False), axes, strict=True):
        rows = [row for row in report["rows"] if row["axis"] == axis]
        values = [row["value"] for row in rows]
        time, memory = pair
        time.plot(values, [1e3 * row["seconds"] for row in rows], "o-", label="operator")
        if rows[0]["fft_times"] is not None:
            by_fft = [1e3 * row["seconds"] * row["fft_times"] for row in rows]
            time.plot(values, by_fft, "s--", label="FFT")
            time.legend(fontsize=8)
        if rows[0]["peak_extra_mib"] is not None:
            memory.plot(values, [row["peak_extra_mib"] for row in rows], "o-")
        for one, label in ((time, "ms"), (memory, "extra MiB")):
            one.set_xscale("log", base=2)
            one.set_xticks(values, [f"{value:,}" for value in values], fontsize=7)
            one.set_xlabel(axis, fontsize=9)
            one.set_ylabel(label, fontsize=9)
            one.tick_params(axis="y", labelsize=8)
            one.grid(alpha=0.3)
        if len(values) > 2:
            time.set_yscale("log")
        memory.set_ylim(bottom=0)
    save_figure(figure, path, dpi=100)
