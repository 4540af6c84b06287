"""The filterbank as a torch operator: derivatives, tracing, types, selection of a backend."""

import warnings

import pytest
import torch
from torch import Tensor

from spaudio.filters import filterbank
from spaudio.filters.fused import cpu, op
from spaudio.filters.fused.depthwise_op import native_depthwise


def arguments(dtype: torch.dtype = torch.float32, gains: int = 0) -> list[Tensor]:
    """x (2, 9, 3), kernels (4, 3) and (2, 1), gains."""
    generator = torch.Generator().manual_seed(3)
    shape = [(6,), (3, 6), (2, 9, 6)][gains]
    return [
        torch.randn(s, generator=generator, dtype=dtype).requires_grad_()
        for s in ((2, 9, 3), (4, 3), (2, 1), shape)
    ]


def call(x: Tensor, first: Tensor, second: Tensor, gains: Tensor) -> Tensor:
    mask = torch.zeros(x.shape[:2], dtype=torch.bool)
    mask[:, -2:] = True
    return filterbank(x, [first, second], gains, causal=True, padding_mask=mask, activation="gelu")


def test_first_and_second_derivatives() -> None:
    for gains in range(3):
        inputs = tuple(arguments(torch.float64, gains))
        assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
    x, first, second, weights = inputs
    frozen = (first.detach(), second.detach())
    assert torch.autograd.gradgradcheck(
        lambda x, g: call(x, *frozen, g), (x, weights), fast_mode=True
    )


def test_third_derivatives() -> None:
    inputs = arguments(torch.float64)
    x, first, second, gains = inputs

    def thrice(backend: str) -> tuple[Tensor, ...]:
        y = filterbank(x, [first, second], gains, activation="gelu", backend=backend)
        for leaf in (x, first):
            [grad] = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
            y = grad
        return torch.autograd.grad(y.square().sum(), inputs)

    torch.testing.assert_close(thrice("gemm"), thrice("reference"))


@pytest.mark.parametrize("backend", ["cpu", "gemm"])
def test_operator_contract(backend: str) -> None:
    x, kernels, _, gains = arguments(gains=2)
    flat = kernels.detach().flatten().requires_grad_()
    gains = gains[..., :4].detach().requires_grad_()
    common = (x, flat, [4, 3], gains, None, False, "relu", True, backend)
    # Tracing is the same for every backend; what a backend returns must match the fake kernels.
    checks = ["test_schema", "test_faketensor"]
    if backend == "cpu":
        checks += ["test_autograd_registration"]
    torch.library.opcheck(op.fused_filterbank, common, test_utils=checks)
    grad = torch.ones_like(x)
    common = (grad, *common, [True, False, True])
    torch.library.opcheck(op.fused_filterbank_backward, common, test_utils=checks)


@pytest.mark.parametrize("backend", ["cpu", "gemm"])
def test_operators_refuse_what_does_not_fit(backend: str) -> None:
    """The native library does not know the sizes of the memory that it reads."""
    right = {"x": torch.randn(2, 9, 6), "kernels": torch.randn(12), "gains": torch.randn(4)}
    rest = {"shapes": [4, 3], "padding_mask": None, "causal": False, "activation": "relu"}
    rest |= {"residual": True, "backend": backend}
    backward = torch.ops.spaudio.filterbank_backward
    for name, wrong, message in (
        ("x", torch.randn(9, 6), r"batch, tokens, dim.*\(9, 6\)"),
        ("kernels", torch.randn(11), r"\[\(4, 3\)\].* 12 taps.*got kernels \(11,\)"),
        ("gains", torch.randn(3), r"\(4,\), \(6, 4\), \(2, 9, 4\).*gains \(3,\)"),
        ("padding_mask", torch.zeros(2, 8).bool(), r"padding_mask must be .*\(2, 8\)"),
    ):
        given = right | rest | {name: wrong}
        with pytest.raises(ValueError, match=message):
            op.fused_filterbank(**given)
        with pytest.raises(ValueError, match=message):
            backward(grad=right["x"], wanted=[True] * 3, **given)
    with pytest.raises(ValueError, match=r"gradient must be \(2, 9, 6\).*got \(2, 8, 6\)"):
        backward(grad=torch.randn(2, 8, 6), wanted=[True] * 3, **right, **rest)


def test_depthwise_operators_refuse_what_does_not_fit() -> None:
    x, kernels, options = torch.randn(2, 9, 6), torch.randn(6, 4), (None, True)
    backward = torch.ops.spaudio.depthwise_backward
    for given, message in (
        ((x, kernels[:1], *options), r"\(dim, K\) = \(6, K\).*got \(1, 4\)"),
        ((x, kernels[:, :0], *options), r"\(6, K\).*at least 1; got \(6, 0\)"),
        ((x, kernels[0], *options), r"\(6, K\).*got \(4,\)"),
        ((x[0], kernels, *options), r"batch, tokens, dim.*\(9, 6\)"),
        ((x, kernels, torch.zeros(2, 8).bool(), True), r"padding_mask must be .*\(2, 8\)"),
        ((x.half(), kernels, *options), "float32 or bfloat16.*got torch.float16"),
        ((x, kernels.double(), *options), "kernels in float32.*float64"),
    ):
        with pytest.raises(ValueError, match=message):
            native_depthwise(*given)
        with pytest.raises(ValueError, match=message):
            backward(x, *given, [True, True])
    with pytest.raises(ValueError, match=r"gradient must be \(2, 9, 6\).*got \(2, 8, 6\)"):
        backward(x[:, 1:], x, kernels, *options, [True, True])


def test_every_backend_keeps_kernels_and_gains_under_autocast() -> None:
    x, first, second, gains = (value.detach() for value in arguments())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cpu_, gemm, reference = (
            filterbank(x, [first, second], gains, backend=each)
            for each in ("cpu", "gemm", "reference")
        )
        batched = torch.vmap(lambda item: filterbank(item[None], [first, second], gains)[0])(x)
    taps = native = [first, second]
    if torch.cpu._is_avx512_bf16_supported():  # the native kernel rounds short kernels to multiply
        native = [kernel.bfloat16().double() for kernel in taps]
    for y, kernels in ((cpu_, native), (gemm, taps), (reference, taps), (batched, taps)):
        # Sums in float32 may round to the neighbour.
        rounded = filterbank(x.bfloat16().double(), kernels, gains).bfloat16()
        torch.testing.assert_close(y, rounded, rtol=2**-7, atol=1e-6)
        assert (y != rounded).float().mean() < 0.05


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_float32_parameters(dtype: torch.dtype, autocast: bool) -> None:
    x, first, second, gains = arguments()
    x = x.detach().to(torch.float32 if autocast else dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        y = filterbank(x, [first, second], gains)
    torch.autograd.backward(y.float().square().sum())
    assert y.dtype == dtype
    grads = [v.grad is not None and v.grad.dtype for v in (x, first, gains)]
    assert grads == [x.dtype, torch.float32, torch.float32]
    exact = filterbank(x.to(dtype).double(), [first.double(), second.double()], gains.double())
    # One rounding, at the end.
    assert (y.double() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("gains", range(3))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_second_derivatives_in_half_precision(dtype: torch.dtype, gains: int) -> None:
    def second(x: Tensor, bank: list[Tensor], weights: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = filterbank(x, bank, weights, activation="gelu", residual=True)
        (first,) = torch.autograd.grad(y.double().square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.double().square().sum(), x)[0]

    x, *bank, weights = (v.detach().to(dtype) for v in arguments(gains=gains))
    exact = second(x.double(), [k.double() for k in bank], weights.double())
    results = [second(x, bank, weights), second(x, [k.float() for k in bank], weights.float())]
    with torch.autocast("cpu", dtype=dtype):
        results.append(second(x.float(), [k.float() for k in bank], weights.float()))
    for result in results:
        assert (result.double() - exact).abs().max() < 0.05 * exact.abs().max()


def test_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    x, first, second, gains = arguments()
    monkeypatch.setenv("SPAUDIO_FILTER_BACKEND", "reference")
    by_definition = filterbank(x, [first, second], gains)
    assert "filterbank" not in type(by_definition.grad_fn).__name__.lower()
    monkeypatch.setenv("SPAUDIO_FILTER_BACKEND", "gemm")
    operator = filterbank(x, [first, second], gains)
    assert "filterbank" in type(operator.grad_fn).__name__.lower()
    monkeypatch.setenv("SPAUDIO_FILTER_BACKEND", "abacus")
    with pytest.raises(ValueError, match=r"abacus.*SPAUDIO_FILTER_BACKEND"):
        filterbank(x, [first, second], gains)
    torch.testing.assert_close(operator, filterbank(x, [first, second], gains, backend="cpu"))
    for backend in ("cpu", "triton"):
        with pytest.raises(ValueError, match=f"'{backend}' supports float32.*float64 on cpu"):
            filterbank(x.double(), [first, second], gains, backend=backend)
    assert op.select("auto", torch.device("cpu"), torch.float32) == "cpu"
    assert op.select("auto", torch.device("cpu"), torch.float64) == "gemm"
    assert op.select("auto", torch.device("meta"), torch.float32) == "gemm"


def test_without_the_library_one_warning_and_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = arguments()
    expected = call(*inputs)
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    cpu.library.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"slower path.*g\+\+"):
            result = call(*inputs)
        torch.testing.assert_close(result, expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(*inputs)
        with pytest.raises(ValueError, match="not built"):
            filterbank(inputs[0], inputs[1], inputs[3][:4], backend="cpu")
    finally:
        cpu.library.cache_clear()


def test_kernels_in_double_precision_are_summed_in_it() -> None:
    generator = torch.Generator().manual_seed(3)
    kernels, gains = (
        torch.randn(s, generator=generator, dtype=torch.float64) for s in ((32, 64), (32,))
    )
    x = torch.randn(2, 9, 3, generator=generator)
    exact = filterbank(x.double(), kernels, gains)
    assert torch.equal(filterbank(x, kernels, gains), exact.float())
