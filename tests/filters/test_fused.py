"""Every backend of the filterbank against the definition in float64, forward and backward."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spaudio.filters import filterbank
from spaudio.filters.fused import gemm, triton_launch

# M and K of each scale: one filter and one tap; sizes that are no multiple of a block; several
# scales, the longest longer than the tokens; few taps and more filters than a block.
BANKS = {
    "single": [(1, 1)],
    "tails": [(7, 5)],
    "multiscale": [(4, 9), (1, 1), (2, 40), (3, 2)],
    "short": [(30, 4), (25, 3), (26, 2)],
}
# Batch, tokens, dim: within one vector; several tiles and vectors, with tails; one token.
SIZES = [(3, 11, 5), (2, 211, 19), (4, 1, 8)]
# Whether causal, activation and whether padded: each pair of values.
OPTIONS = [
    (True, "relu", False), (False, "relu", True), (True, "gelu", True), (False, "gelu", False),
    (True, "identity", True), (False, "identity", False),
]  # fmt: skip

# test_fused_triton.py runs this file in a process with Triton's interpreter.
BACKENDS = ["cpu", "gemm", *(["triton"] if triton_launch.interpreted() else [])]
backends = pytest.mark.parametrize("backend", BACKENDS)
# More than the lanes of two vectors; the interpreter has no lanes and is slow.
DIM = 2 if triton_launch.interpreted() else 19


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def draw(
    size: tuple[int, int, int], bank: list[tuple[int, int]], gains: int, seed: int = 0
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """x, kernels, gains, and the gradient of the result, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        # Rounded to float32, so that float32 and float64 start from the same values.
        return torch.randn(shape, generator=generator).double()

    batch, tokens, dim = size
    filters = sum(m for m, _ in bank)
    shape = [(filters,), (dim, filters), (batch, tokens, filters)][gains]
    return normal(*size), [normal(*k) for k in bank], normal(*shape), normal(*size)


def run(
    tensors: tuple[Tensor, list[Tensor], Tensor, Tensor],
    backend: str,
    dtype: torch.dtype,
    **kw: object,
) -> list[Tensor]:
    """The result and the gradients of x, gains and each kernel."""
    x, kernels, gains, grad = tensors
    leaves = [value.detach().to(dtype).requires_grad_() for value in (x, gains, *kernels)]
    y = filterbank(leaves[0], leaves[2:], leaves[1], backend=backend, **kw)  # type: ignore[arg-type]
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def relative_errors(results: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [
        float((a.double() - b).norm() / b.norm().clamp_min(1e-300))
        for a, b in zip(results, exact, strict=True)
    ]


@backends
@pytest.mark.parametrize("bank", BANKS)
def test_agrees_with_the_definition(backend: str, bank: str) -> None:
    # Each size with three options, for each shape of gains others.
    cases = list(itertools.product(range(3), SIZES)) * 2
    for (gains, size), (causal, activation, padded) in zip(
        cases, itertools.cycle(OPTIONS), strict=False
    ):
        tensors = draw(size, BANKS[bank], gains)
        mask = torch.rand(size[:2], generator=torch.Generator().manual_seed(1)) < 0.3
        options = {
            "causal": causal,
            "activation": activation,
            "padding_mask": mask if padded else None,
        }
        exact = run(tensors, "reference", torch.float64, **options)
        errors = relative_errors(run(tensors, backend, torch.float32, **options), exact)
        # Sums that cancel lose digits, also in the definition.
        rounding = relative_errors(run(tensors, "reference", torch.float32, **options), exact)
        assert all(a < 3e-6 + 4 * b for a, b in zip(errors, rounding, strict=True)), (size, gains)


def test_gemm_is_exact_in_float64_for_any_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    for gains, size in itertools.product(range(3), (1, 2000, 1 << 20)):
        tensors = draw((3, 29, 5), BANKS["multiscale"], gains)
        exact = run(tensors, "reference", torch.float64)
        monkeypatch.setitem(gemm.TILE_BYTES, "cpu", size)
        assert max(relative_errors(run(tensors, "gemm", torch.float64), exact)) < 1e-13


@pytest.mark.parametrize(
    ("backend", "bank", "allowed"),
    [
        ("cpu", [(144, 32)], 1.02),
        ("cpu", [(24, 16)], 1.5),
        ("gemm", [(144, 32)], 1.5),
        ("gemm", [(24, 16)], 2.0),
    ],
    ids=str,
)
def test_error_in_float32_against_the_definitions(
    backend: str, bank: list[tuple[int, int]], allowed: float
) -> None:
    """The native kernel rounds no more than conv1d for large banks.

    For small banks, rounding flips fewer signs before the ReLU, and the gradient of ``x`` shows the
    native kernel's split into halves.
    """
    mine, definition = [], []
    for seed in range(3):
        tensors = draw((2, 256, 32), bank, 0, seed)
        exact = run(tensors, "reference", torch.float64)
        mine.append(relative_errors(run(tensors, backend, torch.float32), exact))
        definition.append(relative_errors(run(tensors, "reference", torch.float32), exact))
    sums = [[sum(column) for column in zip(*rows, strict=True)] for rows in (mine, definition)]
    assert all(a <= allowed * b for a, b in zip(*sums, strict=True)), sums


@backends
def test_empty(backend: str) -> None:
    for size in ((0, 5, 3), (2, 0, 3), (2, 5, 0)):
        y, grad_x, *others = run(draw(size, [(4, 3)], 0), backend, torch.float32)
        assert y.shape == grad_x.shape == size
        assert not any(grad.any() for grad in others)


@backends
def test_any_memory_layout(backend: str) -> None:
    x, (kernel,), gains, grad = draw((2, 13, DIM), [(5, 4)], 1)
    exact = run((x, [kernel], gains, grad), "reference", torch.float64)
    layouts: list[Callable[[Tensor], Tensor]] = [
        lambda v: v.transpose(-1, -2).contiguous().transpose(-1, -2),
        lambda v: torch.cat([torch.stack([v, v + 1], dim=-1)] * 2)[len(v) :, ..., 0],
    ]
    for layout in layouts:
        laid = [layout(v).float() for v in (x, kernel, gains, grad)]
        leaves = [v.requires_grad_() for v in (laid[0], laid[2], laid[1])]
        y = filterbank(leaves[0], leaves[2], leaves[1], backend=backend)
        grads = torch.autograd.grad(y, leaves, laid[3])
        assert max(relative_errors([y.detach(), *grads], exact)) < 3e-6
        if backend != "cpu":
            continue
        # In the other type of the native kernel, with its residual and a mask.
        mask = torch.arange(13) % 4 == torch.tensor([[1], [3]])
        options = {"residual": True, "padding_mask": mask}
        near = run((laid[0].bfloat16(), [kernel], gains, laid[3].bfloat16()), "reference",
                   torch.float64, **options)  # fmt: skip
        tokens = laid[0].detach().bfloat16().requires_grad_()
        options["padding_mask"] = mask.t().contiguous().t()
        y = filterbank(tokens, leaves[2], leaves[1], backend=backend, **options)  # type: ignore[arg-type]
        grads = torch.autograd.grad(y, [tokens, *leaves[1:]], laid[3].bfloat16())
        assert max(relative_errors([y.detach(), *grads], near)) < 3e-2  # kernels are rounded
    summed = torch.autograd.grad(
        filterbank(leaves[0], leaves[2], leaves[1], backend=backend).sum(), leaves
    )
    exact = run((x, [kernel], gains, torch.ones_like(x)), "reference", torch.float64)[1:]
    assert max(relative_errors(list(summed), exact)) < 3e-6


def test_one_tap_of_transposed_tokens_in_float64() -> None:
    """With nothing to pad, the tiles are windows of the tokens themselves."""
    x = torch.randn(2, 5, 9, dtype=torch.float64).transpose(1, 2)
    kernel, gains = torch.randn(3, 1, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    y = filterbank(x, kernel, gains, backend="gemm")
    torch.testing.assert_close(y, filterbank(x, kernel, gains, backend="reference"))


@backends
def test_only_the_gradients_asked_for(backend: str) -> None:
    x, kernels, gains, grad = draw((2, 12, DIM), [(5, 4)], 2)
    exact = run((x, kernels, gains, grad), "reference", torch.float64)[1:]
    for asked in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]):
        leaves = [
            value.float().requires_grad_(bool(want))
            for value, want in zip((x, gains, kernels[0]), asked, strict=True)
        ]
        y = filterbank(leaves[0], leaves[2], leaves[1], backend=backend)
        grads = torch.autograd.grad(y, [v for v in leaves if v.requires_grad], grad.float())
        wanted = [e for e, want in zip(exact, asked, strict=True) if want]
        assert max(relative_errors(list(grads), wanted)) < 3e-6


@backends
def test_nan_stays_where_the_definition_has_it(backend: str) -> None:
    x, kernels, gains, _ = draw((1, 40, 3), [(4, 5)], 0)
    x[0, 20, 1] = float("nan")
    y = filterbank(x.float(), kernels[0].float(), gains.float(), backend=backend)
    expected = filterbank(x, kernels, gains, backend="reference")
    assert y.isnan()[expected.isnan()].all()
    if backend != "gemm":  # which also multiplies neighbouring tokens, by zero
        assert torch.equal(y.isnan(), expected.isnan())
    mask = torch.zeros(1, 40, dtype=torch.bool)
    mask[0, 20] = True
    y = filterbank(x.float(), kernels[0].float(), gains.float(), padding_mask=mask, backend=backend)
    assert y.isfinite().all()
