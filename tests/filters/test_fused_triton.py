"""Triton's kernels against the definition in float64: on a GPU, else in Triton's interpreter.

The interpreter must be enabled before Triton is imported, so it runs in its own process. It accepts
more than the compiler does, so the kernels are also compiled, which needs no GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spaudio.filters import filterbank, fused
from spaudio.filters.fused import op, triton_launch
from spaudio.filters.fused.problem import Problem
from tests.filters.test_fused import draw, relative_errors, run

pytest.importorskip("triton")

INTERPRETED = triton_launch.interpreted()
on_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no GPU; test_under_the_interpreter runs this",
)
in_a_usual_process = pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
DEVICE = "cpu" if INTERPRETED else "cuda"
# M and K of each scale: one block with tails; several blocks of filters and of taps.
BANKS = {"tails": [(7, 5)], "blocks": [(40, 9), (1, 1), (2, 40)]}


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few programs, so that a program has several groups of tiles and a group several programs."""
    monkeypatch.setattr(triton_launch, "PROGRAMS", 4)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(precision)


def moved(tensors: tuple[Tensor, list[Tensor], Tensor, Tensor]) -> tuple[
    Tensor, list[Tensor], Tensor, Tensor
]:  # fmt: skip
    x, kernels, gains, grad = tensors
    return x.to(DEVICE), [k.to(DEVICE) for k in kernels], gains.to(DEVICE), grad.to(DEVICE)


@in_a_usual_process
def test_under_the_interpreter() -> None:
    here = Path(__file__)
    files = [
        str(here),
        str(here.with_name("test_fused.py")),
        str(here.with_name("test_fused_op.py")),
    ]
    chosen = ["-k", "(triton and not agrees_with_the_definition)"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files, *chosen],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        cwd=here.parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@on_kernels
@pytest.mark.parametrize(
    ("bank", "causal", "gains"),
    [("tails", True, 0), ("blocks", True, 1), ("blocks", False, 2)],
)
def test_result_and_gradients(bank: str, causal: bool, gains: int) -> None:
    size = (2, 11, 2) if bank == "tails" else (1, 9, 2)
    tensors = moved(draw(size, BANKS[bank], gains))
    mask = torch.rand(size[:2], generator=torch.Generator().manual_seed(1)) < 0.3
    options = {
        "causal": causal,
        "activation": ["relu", "gelu", "identity"][(gains + causal) % 3],
        "padding_mask": mask.to(DEVICE),
    }
    exact = run(tensors, "reference", torch.float64, **options)
    results = run(tensors, "triton", torch.float32, **options)
    assert max(relative_errors(results, exact)) < 3e-6
    if bank == "tails":
        again = run(tensors, "triton", torch.float32, **options)
        assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))


@on_kernels
@pytest.mark.parametrize("gains", [0, 2])
def test_several_tiles_of_tokens(gains: int) -> None:
    tensors = moved(draw((1, 150, 3), [(5, 9)], gains))
    exact = run(tensors, "reference", torch.float64)
    assert max(relative_errors(run(tensors, "triton", torch.float32), exact)) < 3e-6


@on_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    x, kernels, gains, grad = moved(draw((1, 5, 2), [(7, 5)], 2))
    # Rounded first, so that only the results and one factor are rounded.
    tensors = (x.to(dtype).double(), [k.to(dtype).double() for k in kernels], gains, grad)
    tensors = (*tensors[:2], gains.to(dtype).double(), grad.to(dtype).double())
    exact = run(tensors, "reference", torch.float64)
    assert max(relative_errors(run(tensors, "triton", dtype), exact)) < torch.finfo(dtype).eps


class Largest(TorchDispatchMode):
    """Records the bytes of the largest tensor; the interpreter copies storages."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


@on_kernels
@pytest.mark.parametrize("shape", [(40,), (1, 90, 40)], ids=str)
def test_no_time_frequency_representation(shape: tuple[int, ...]) -> None:
    x, kernels, gains = (torch.randn(s, device=DEVICE) for s in ((1, 90, 3), (200,), shape))
    problem = Problem(x, kernels, [40, 5], gains, None, True, "relu")
    with Largest() as largest:
        triton_launch.forward(problem)
        triton_launch.backward(torch.ones_like(x), problem, [True] * 3)
    # Two programs sum the gains; the representation has 10800 numbers.
    allowed = triton_launch.PROGRAMS * kernels.numel() + max(x.numel(), 2 * gains.numel())
    assert largest.bytes <= 4 * allowed < 4 * x.numel() * 40


@in_a_usual_process
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_compiles_for_a_gpu_that_is_not_here(
    dtype: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = triton_launch.kernels()
    assert module is not None
    shape, kernel, activation = ((24,), (24, 16), "relu")
    if dtype == "bf16":
        shape, kernel, activation = ((2, 100, 24), (24, 40), "gelu")
    x = torch.empty(2, 100, 3, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    taps = torch.empty(kernel)
    problem = Problem(x, taps.flatten(), kernel, torch.empty(shape), None, True, activation)
    options = triton_launch._options(problem, taps)
    warps = {"num_stages": options.pop("num_stages")}
    functions = [
        (module.forward, {"add": True}),
        (module.backward_signal, {"add": True}),
        (module.backward_bank, {"want_kernels": True, "want_gains": True}),
    ]
    # The kernel with most registers in both types, each other one in one of them.
    for function, constants in functions[1:] if dtype == "bf16" else functions[::2]:
        known = {**options, **constants}
        kinds = dict.fromkeys(function.arg_names, "i32")
        kinds |= dict.fromkeys(("gains", "y", "grad_x", "grad_kernels", "grad_gains"), "*fp32")
        kinds |= dict.fromkeys(("x", "kernels", "grad"), f"*{dtype}")
        kinds |= dict.fromkeys(known, "constexpr")
        source = ASTSource(
            function,
            signature={name: kinds[name] for name in function.arg_names},
            constexprs={(function.arg_names.index(n),): value for n, value in known.items()},
        )
        compiled = triton.compile(source, target=GPUTarget("cuda", 86, 32), options=warps)
        assert "mma.sync" in compiled.asm["ptx"]  # on tensor cores
        assert compiled.metadata.shared <= 99 * 1024  # limit of capability 8.6


def test_selected_on_a_gpu_that_supports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    assert op.select("auto", device, torch.bfloat16) == "triton"
    assert op.select("auto", device, torch.float64) == "gemm"
    monkeypatch.setattr(triton_launch, "kernels", lambda: None)
    monkeypatch.setattr(triton_launch, "interpreted", lambda: False)
    assert op.select("auto", device, torch.float32) == "gemm"
    with pytest.raises(ValueError, match="needs the package triton"):
        op.select("triton", device, torch.float32)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ValueError, match=r"capability 8\.0.*\(7, 5\)"):
        op.select("triton", device, torch.float32)


@in_a_usual_process
def test_triton_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "spaudio.filters.fused.triton_kernels", raising=False)
    monkeypatch.delattr(fused, "triton_kernels", raising=False)
    triton_launch.kernels.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="Triton does not import"):
            assert triton_launch.kernels() is None
        assert filterbank(torch.ones(1, 4, 2), torch.ones(3, 2), torch.ones(3)).shape == (1, 4, 2)
    finally:
        triton_launch.kernels.cache_clear()
