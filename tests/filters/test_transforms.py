"""``torch.func``, forward-mode derivatives, meta and fake tensors: right for every filter."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaudio.filters import TokenFilter, filterbank, make_filter
from tests.filters.cases import CASES, DIM, build, padding_mask, spread


def tokens(batch: int = 2, length: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, DIM, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("case", "causal"), spread(CASES, [True, False]))
def test_derivatives_of_both_modes(case: str, causal: bool) -> None:
    filter, x = build(case, causal=causal, dtype=torch.float64), tokens()
    masks, along = padding_mask(2, 5), torch.randn_like(tokens())

    def run(x: Tensor) -> Tensor:
        y: Tensor = filter(x, masks[: len(x), : x.shape[1]])
        return y

    exact = torch.autograd.functional.jacobian(run, x)  # type: ignore[no-untyped-call]
    expected = torch.einsum("btdefg,efg->btd", exact, along)
    close: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(jvp(run, (x,), (along,))[1], expected, **close)
    torch.testing.assert_close(jacfwd(run)(x), exact, **close)
    torch.testing.assert_close(jacrev(run)(x), exact, **close)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, along)  # type: ignore[no-untyped-call]
        tangent = forward_ad.unpack_dual(run(dual)).tangent  # type: ignore[no-untyped-call]
        torch.testing.assert_close(tangent, expected, **close)
    with sdpa_kernel(SDPBackend.MATH):  # for the mask of adaptive filters
        torch.autograd.gradgradcheck(run, tokens(1, 3).requires_grad_())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("case", CASES)
def test_vmap_and_gradients_per_item(case: str) -> None:
    filter, x = build(case, causal=False, dtype=torch.float64), tokens(3)
    weights: dict[str, Tensor] = {n: p.detach() for n, p in filter.named_parameters()}

    def loss(weights: dict[str, Tensor], item: Tensor) -> Tensor:
        y: Tensor = functional_call(filter, weights, (item.unsqueeze(0),))
        return y.square().sum()

    y = vmap(lambda item: filter(item.unsqueeze(0))[0])(x)
    torch.testing.assert_close(y, filter(x))
    per_item = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    for name in weights:
        for index, item in enumerate(x):
            torch.testing.assert_close(per_item[name][index], grad(loss)(weights, item)[name])


@pytest.mark.parametrize("backend", ["auto", "gemm", "cpu"])
def test_no_backend_is_the_identity_to_forward_mode(backend: str) -> None:
    x, kernels, gains = torch.randn(2, 9, 3), torch.randn(4, 3), torch.randn(4)
    functions: list[Any] = [
        partial(filterbank, kernels=kernels, gains=gains, activation="gelu", backend=each)
        for each in (backend, "reference")
    ]
    results = [jvp(f, (x,), (torch.ones_like(x),))[1] for f in functions]
    torch.testing.assert_close(*results)
    half = x.bfloat16()  # with kernels in float32
    tangent = jvp(functions[0], (half,), (torch.ones_like(half),))[1]
    assert tangent.dtype == half.dtype
    torch.testing.assert_close(tangent.float(), results[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("case", CASES)
def test_meta_and_fake_tensors_have_shapes(case: str) -> None:
    def check(filter: TokenFilter, x: Tensor) -> None:
        y = filter(x.requires_grad_(), torch.zeros(2, 5, dtype=torch.bool, device=x.device))
        assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape

    check(build(case, causal=True).to("meta"), torch.empty(2, 5, DIM, device="meta"))
    with FakeTensorMode():
        check(make_filter(dim=DIM, causal=True, **CASES[case]), torch.empty(2, 5, DIM))
        filter, ends = make_filter(dim=DIM, causal=True, **CASES[case]), torch.tensor([0, 2, 5])
        if math.isfinite(filter.receptive_field[0]):  # others take no packed sequences
            assert filter(torch.empty(1, 5, DIM), cu_seqlens=ends).shape == (1, 5, DIM)
