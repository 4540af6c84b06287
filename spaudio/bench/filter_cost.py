"""Backends of the filters against the reference and a transformer layer, timed in turn."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.bench.memory import peak_extra_bytes
from spaudio.bench.shapes import Shape
from spaudio.filters.fused import cpu
from spaudio.filters.fused.op import select
from spaudio.training.allocator import keep_freed_memory

SHAPES = (
    Shape("K32", 8, 256, 128, ((144, 32),)),
    Shape("K16", 8, 256, 128, ((144, 16),)),
    Shape("K16-bfloat16", 8, 256, 128, ((144, 16),), "bfloat16"),
    Shape("scales", 8, 256, 128, ((36, 8), (36, 16), (36, 32), (36, 64))),
    Shape("small", 16, 100, 64, ((24, 16),)),
    # Tokens that fit no cache, as a depthwise filter is limited by memory.
    *(
        Shape(f"depthwise{taps}{end}", 64, 512, 128, ((128, taps),), dtype, depthwise=True)
        for taps in (4, 16)
        for end, dtype in (("", "float32"), ("-bfloat16", "bfloat16"))
    ),
)
BACKENDS = {"cpu": ("reference", "gemm", "cpu"), "cuda": ("reference", "gemm", "triton")}
MATRIX = 4096  # rows and columns; 0.14 TFLOP per product
PASSES = ("forward", "forward+backward")
COLUMNS = {
    "batch, tokens, dim": "{shape[batch]}, {shape[tokens]}, {shape[dim]}",
    "bank": "{bank}",
    "pass": "{pass}",
    "backend": "{backend}",
    "ms": "{ms:.1f}",
    "speedup": "{times_faster_than_reference:.1f}",
    "GFLOP/s": "{gflops:.0f}",
    "of peak": "{share_of_peak:.0%}",
    "GB/s": "{gbytes:.1f}",
    "of a copy": "{share_of_copy:.0%}",
    "extra MiB": "{peak_extra_mib:.1f}",
    "relative to a layer": "{times_a_layer:.2f}",
}


def measure(
    shapes: Sequence[Shape], rounds: int, limit: float, device: str = "cpu"
) -> dict[str, Any]:
    """Times all backends, a transformer layer, the multiply-add peak and a copy, in turn.

    On a CPU, the peak is the rate of the native library on registers; on a GPU, that of torch's
    product of two large float32 matrices.

    Args:
        shapes: Shapes to measure.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds per shape after which no further round starts.
        device: "cpu" or "cuda".

    Returns:
        ``machine``, and ``rows``, one per shape, pass and backend. The forward pass counts as one
        product of all kernels with all windows. The backward pass counts as two more for the
        reference, and as three for backends that recompute the responses. A depthwise filter is
        limited by memory instead: ``gbytes`` is the least that it must move, two signals forward
        and three backward, per second, and ``share_of_copy`` the same relative to what
        ``Tensor.copy_`` of the tokens reads and writes per second.
    """
    keep_freed_memory()  # as in training; otherwise new pages would take most of the time
    where = torch.device(device)
    backends = ["reference"]
    for name in BACKENDS[device][1:]:
        try:
            backends.append(select(name, where, torch.float32))
        except ValueError as error:
            print(f"left out: {error}")
    rows = [row for shape in shapes for row in _measure(shape, backends, rounds, limit, device)]
    return {"machine": machine(device), "rows": rows}


def _measure(
    shape: Shape, backends: Sequence[str], rounds: int, limit: float, device: str
) -> list[dict[str, Any]]:
    library = cpu.library()
    if shape.depthwise:
        backends = [backend for backend in backends if backend in ("reference", "cpu")]
    functions: dict[str, Callable[[], object]] = {"layer": _layer_step(shape, device)}
    for backend in backends:
        functions[f"{backend} forward"] = shape.forward(backend, device)
        functions[f"{backend} forward+backward"] = shape.step(backend, device)
    peaks: list[float] = []
    if device == "cuda":
        matrix = torch.ones(MATRIX, MATRIX, device=device)
        functions["peak"] = lambda: matrix @ matrix
    elif library is not None:
        functions["peak"] = lambda: peaks.append(library.peak(0.05))
    x = shape.inputs(device)[0].detach()
    copy = torch.empty_like(x)
    functions["copy"] = lambda: copy.copy_(x)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = take_turns(functions, rounds, limit, wait)
    if device == "cuda":
        peaks = [2 * MATRIX**3 / took for took in seconds["peak"]]
    peak = statistics.median(peaks) if peaks else None
    bank = " + ".join(f"{filters}·{taps}" for filters, taps in shape.bank)
    if shape.depthwise:
        bank = f"depthwise, {shape.bank[0][1]} taps"
    rows = []
    for backend in backends:
        memory = peak_extra_bytes(backend, shape, device)
        for kind in PASSES:
            took = seconds[f"{backend} {kind}"]
            both = kind == "forward+backward"
            products = 1 if not both else 3 if backend == "reference" else 4
            speed = shape.operations * products / statistics.median(took)
            signals = 5 if both else 2
            rows.append(
                {
                    "shape": asdict(shape),
                    "bank": bank if shape.dtype == "float32" else f"{bank}, {shape.dtype}",
                    "pass": kind,
                    "backend": backend,
                    "rounds": len(took),
                    "seconds": statistics.median(took),
                    "times_faster_than_reference": ratio(seconds[f"reference {kind}"], took),
                    "gflops": speed / 1e9,
                    "peak_gflops": peak and peak / 1e9,
                    "share_of_peak": peak and speed / peak,
                    "gbytes": None,
                    "share_of_copy": None,
                    "peak_extra_mib": memory / 2**20 if both and memory is not None else None,
                    "times_a_layer": ratio(took, seconds["layer"]) if both else None,
                }
            )
            if shape.depthwise:
                copied = ratio(seconds["copy"], took)  # which reads one signal and writes one
                rows[-1] |= {
                    "gflops": None,
                    "share_of_peak": None,
                    "gbytes": signals * x.nbytes / statistics.median(took) / 1e9,
                    "share_of_copy": signals / 2 * copied,
                }
    return rows


def _layer_step(shape: Shape, device: str) -> Callable[[], tuple[Tensor, ...]]:
    """Returns the forward and backward pass of an encoder layer of the same width.

    Without dropout, as the recipes have it: its random numbers would double the layer's time.
    """
    layer = nn.TransformerEncoderLayer(
        shape.dim, nhead=4, dim_feedforward=4 * shape.dim, dropout=0.0, batch_first=True,
        device=device,
    )  # fmt: skip
    x, _, _, grad = replace(shape, dtype="float32").inputs(device)
    leaves = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x), leaves, grad)
