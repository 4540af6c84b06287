"""Triton's kernels against the definition in float64: on a GPU, else in Triton's interpreter.

The interpreter must be enabled before Triton is imported, so it runs in its own process. It accepts
more than the compiler does, so the kernels are also compiled, which needs no GPU.
"""

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


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few programs, so that a program has several groups of tiles and a group several programs."""
    monkeypatch.setattr(triton_launch, "PROGRAMS", 4)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(precision)


@in_a_usual_process
def test_under_the_interpreter() -> None:
    here = Path(__file__)
    files = [str(here), str(here.with_name("test_fused.py"))]
    chosen = ["-k", "triton and not agrees_with_the_definition"]
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
    ("size", "bank", "gains", "dtype"),
    [
        ((2, 11, 2), [(7, 5)], 0, torch.float32),
        # Several blocks of filters and of taps.
        ((1, 9, 2), [(40, 9), (1, 1), (2, 40)], 1, torch.float32),
        # Several tiles of tokens.
        ((1, 140, 1), [(5, 9)], 2, torch.float32),
        ((1, 5, 2), [(7, 5)], 2, torch.float16),
        ((1, 5, 2), [(7, 5)], 2, torch.bfloat16),
    ],
    ids=str,
)
def test_result_and_gradients(
    size: tuple[int, int, int], bank: list[tuple[int, int]], gains: int, dtype: torch.dtype
) -> None:
    x, kernels, gain, grad = draw(size, bank, gains)
    # Rounded first, so that only the results and one factor are rounded.
    x, gain, grad, *kernels = (v.to(DEVICE, dtype).double() for v in (x, gain, grad, *kernels))
    mask = torch.rand(size[:2], generator=torch.Generator().manual_seed(1)) < 0.3
    options = {
        "causal": gains < 2,
        "activation": ["relu", "gelu", "identity"][gains],
        "padding_mask": mask.to(DEVICE),
    }
    exact = run((x, kernels, gain, grad), "reference", torch.float64, **options)
    results = run((x, kernels, gain, grad), "triton", dtype, **options)
    allowed = 3e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    assert max(relative_errors(results, exact)) < allowed
    if gains == 0:
        again = run((x, kernels, gain, grad), "triton", dtype, **options)
        assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))


@on_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sums_are_float32_whatever_the_default_type(dtype: torch.dtype) -> None:
    x, kernels, gain, grad = draw((1, 20, 2), [(4, 3)], 0)
    tensors = (x.to(DEVICE), [kernels[0].to(DEVICE)], gain.to(DEVICE), grad.to(DEVICE))
    expected = run(tensors, "triton", torch.float32)
    torch.set_default_dtype(dtype)
    try:
        results = run(tensors, "triton", torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


class Largest(TorchDispatchMode):
    """Records the bytes of the largest tensor; the interpreter copies storages."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


@on_kernels
def test_no_time_frequency_representation() -> None:
    x, kernels, gains = (torch.randn(s, device=DEVICE) for s in ((1, 90, 3), (200,), (1, 90, 40)))
    problem = Problem(x, kernels, [40, 5], gains, None, True, "relu")
    with Largest() as largest:
        triton_launch.forward(problem)
        triton_launch.backward(torch.ones_like(x), problem, [True] * 3)
    # Two programs sum the gains; the representation has 10800 numbers.
    allowed = triton_launch.PROGRAMS * kernels.numel() + max(x.numel(), 2 * gains.numel())
    assert largest.bytes <= 4 * allowed < 4 * x.numel() * 40


@in_a_usual_process
@pytest.mark.parametrize(
    ("name", "dtype", "gains", "bank", "constants"),
    [
        ("forward", "fp32", (24,), (24, 16), {"add": True}),
        ("backward_signal", "bf16", (2, 100, 24), (24, 40), {"add": True}),
        ("backward_bank", "fp32", (24,), (24, 16), {"want_kernels": True, "want_gains": True}),
    ],
    ids=str,
)
def test_compiles_for_a_gpu_that_is_not_here(
    name: str,
    dtype: str,
    gains: tuple[int, ...],
    bank: tuple[int, int],
    constants: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    x = torch.empty(2, 100, 3, dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
    taps = torch.empty(bank)
    problem = Problem(x, taps.flatten(), bank, torch.empty(gains), None, True, "gelu")
    known = {**triton_launch._options(problem, taps), **constants}
    stages = {"num_stages": known.pop("num_stages")}
    function = getattr(triton_launch.kernels(), name)
    kinds = dict.fromkeys(function.arg_names, "i32")
    kinds |= dict.fromkeys(("gains", "y", "grad_x", "grad_kernels", "grad_gains"), "*fp32")
    kinds |= dict.fromkeys(("x", "kernels", "grad"), f"*{dtype}")
    kinds |= dict.fromkeys(known, "constexpr")
    source = ASTSource(
        function,
        signature={name: kinds[name] for name in function.arg_names},
        constexprs={(function.arg_names.index(n),): value for n, value in known.items()},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 86, 32), options=stages)
    assert "mma.sync" in compiled.asm["ptx"]  # on tensor cores
    assert compiled.metadata.shared <= 99 * 1024  # limit of capability 8.6


@in_a_usual_process
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
        with pytest.warns(UserWarning, match="Triton does not import"):
            assert triton_launch.kernels() is None
        assert filterbank(torch.ones(1, 4, 2), torch.ones(3, 2), torch.ones(3)).shape == (1, 4, 2)
    finally:
        triton_launch.kernels.cache_clear()
