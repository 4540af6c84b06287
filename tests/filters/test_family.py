"""Properties of every filter: causal or not, padded or not, in every type."""

import copy
import math
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from spaudio.filters import (
    FILTERS,
    AdaptiveFilterBank,
    DepthwiseFilter,
    FilterBank,
    FilterStream,
    FIRFilter,
    HaarFilter,
    TokenFilter,
    centre_frequency,
    make_filter,
)
from tests.filters.cases import CASES, DIM, build, expected, padding_mask, spread

every_filter = pytest.mark.parametrize("case", CASES)
# Both kinds of padding of each filter, half of them with a padding mask.
VARIANTS = [
    (case, causal, (index + causal) % 2 == 0)
    for (index, case), causal in product(enumerate(CASES), [True, False])
]
# Largest error over largest value; bfloat16 has 8 bits of significand.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def tokens(batch: int = 3, length: int = 13, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_cases_include_every_filter() -> None:
    assert {case["name"] for case in CASES.values()} == set(FILTERS)


@pytest.mark.parametrize(("case", "causal", "padded"), VARIANTS)
def test_equals_definition(case: str, causal: bool, padded: bool) -> None:
    for dtype, tolerance in TOLERANCE.items():
        filter = build(case, causal=causal, dtype=dtype)
        x = tokens(dtype=dtype)
        mask = padding_mask(*x.shape[:2]) if padded else None
        with torch.no_grad():
            y = filter(x, mask)
        assert y.dtype == dtype
        reference = expected(filter, x, mask)
        assert (y.double() - reference).abs().max() <= tolerance * reference.abs().max()


@pytest.mark.parametrize(("case", "causal", "padded"), VARIANTS)
def test_receptive_field_is_exact(case: str, causal: bool, padded: bool) -> None:
    """The gradient is exactly zero outside the field and not zero inside."""
    filter = build(case, causal=causal, dtype=torch.float64)
    length, real = 25, 19 if padded else 25
    mask = (torch.arange(length) >= real).unsqueeze(0) if padded else None
    left, right = filter.receptive_field
    for position in (0, 9, 18):
        x = tokens(1, length, torch.float64).requires_grad_()
        filter(x, mask)[0, position].sum().backward()
        assert x.grad is not None
        seen = x.grad[0].abs().amax(-1) > 0
        inside = [
            position - left <= t <= position + right and (t < real or t == position)
            for t in range(length)
        ]
        assert seen.tolist() == inside


@pytest.mark.parametrize(("case", "causal", "padded"), spread(CASES, [True, False], [True, False]))
def test_gradcheck(case: str, causal: bool, padded: bool) -> None:
    filter = build(case, causal=causal, dtype=torch.float64)
    names = [name for name, _ in filter.named_parameters()]
    x = tokens(2, 5, torch.float64).requires_grad_()
    mask = padding_mask(2, 5) if padded else None

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        output: Tensor = functional_call(
            filter, dict(zip(names, parameters, strict=True)), (x, mask)
        )
        return output

    # Fast mode: random projections of the Jacobian, as the adaptive filter has many parameters.
    assert torch.autograd.gradcheck(run, (x, *filter.parameters()), fast_mode=True)
    if not case.startswith("adaptive"):  # which has first derivatives only
        assert torch.autograd.gradgradcheck(run, (x, *filter.parameters()), fast_mode=True)


@every_filter
def test_clip_alone_equals_clip_padded_in_a_batch(case: str) -> None:
    filter = build(case, causal=False, dtype=torch.float64)
    x = tokens(3, 13, torch.float64)
    mask = padding_mask(3, 13)
    # Padding may hold anything, even NaN.
    x = x.masked_fill(mask.unsqueeze(-1), math.nan)
    batch = filter(x, mask)
    for clip, padding, y in zip(x, mask, batch, strict=True):
        alone = filter(clip[~padding].unsqueeze(0))[0]
        torch.testing.assert_close(y[~padding], alone, rtol=1e-12, atol=1e-12)
        assert y[padding].isnan().all()
    x = tokens(3, 13, torch.float64)
    assert torch.equal(filter(x, mask)[mask], x[mask])


@every_filter
def test_memory_order_of_tokens_mask_and_gradient(case: str) -> None:
    """Transposed and expanded tensors give what contiguous ones give."""
    filter = build(case, causal=False, dtype=torch.float32)
    x, mask = tokens(3, 13, torch.float32), padding_mask(3, 13)
    plain = filter(x, mask)
    strided = filter(x.transpose(0, 1).contiguous().transpose(0, 1), mask.t().contiguous().t())
    torch.testing.assert_close(strided, plain)
    one = mask[-1:].expand(3, 13)
    torch.testing.assert_close(filter(x, one), filter(x, one.contiguous()))
    x.requires_grad_()
    wanted = torch.autograd.grad(filter(x, mask), x, torch.ones(3, 13, DIM))[0]
    found = torch.autograd.grad(filter(x, mask).sum(), x)[0]  # its gradient has strides of zero
    torch.testing.assert_close(found, wanted)


@every_filter
def test_autocast_stays_near_full_precision(case: str) -> None:
    filter = build(case, causal=False)
    x = tokens().requires_grad_()
    mask = padding_mask(3, 13)
    reference = filter(x, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = filter(x, mask)
    assert y.dtype == x.dtype  # what is added is rounded, not the tokens
    assert (y - reference).abs().max() <= 3e-2 * reference.abs().max()
    y.float().square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@every_filter
def test_tokens_of_another_type_than_the_parameters(case: str) -> None:
    filter, exact = (build(case, causal=True, dtype=d) for d in (torch.float32, torch.float64))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        x = tokens(dtype=dtype)
        results = [filter(x), x + filter.filtered(x), FilterStream(filter).step(x)]
        if "adaptive" not in case:  # which has no state
            results.append(filter(x, output_final_state=True)[0])
            begun, state = filter(x[:, :2], output_final_state=True)
            results.append(torch.cat([begun, filter(x[:, 2:], initial_state=state)], dim=1))
        reference = exact(x.double())
        tolerance = TOLERANCE[torch.float32 if dtype == torch.float64 else torch.bfloat16]
        for y in results:
            assert y.dtype == dtype
            assert (y - reference).abs().max() <= tolerance * reference.abs().max()


@every_filter
def test_config_and_state_dict_rebuild_the_filter(case: str) -> None:
    filter = build(case, causal=True)
    assert filter.num_parameters == sum(value.numel() for value in filter.state_dict().values())
    assert "causal=True" in repr(filter)
    twin = make_filter(**filter.config())
    x = tokens()
    if filter.num_parameters:
        assert not torch.equal(twin(x), filter(x))
    twin.load_state_dict(filter.state_dict())
    assert torch.equal(twin(x), filter(x))
    assert twin.config() == filter.config()


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("none", "haar")])
def test_initial_parameters(case: str) -> None:
    """Bounds are those of ``Conv1d``; with ``zero_init`` the filter is the identity and learns."""
    filter = build(case, causal=False)
    before = {name: value.clone() for name, value in filter.state_dict().items()}
    filter.reset_parameters()  # type: ignore[operator]
    for name, value in filter.named_parameters():
        if "kernels" in name or "gains" in name:
            assert not torch.equal(value, before[name])
            assert value.abs().max() <= 1 / math.sqrt(value.shape[-1])
    filter = make_filter(dim=DIM, zero_init=True, **CASES[case])
    x = tokens()
    y = filter(x, padding_mask(*x.shape[:2]))
    assert torch.equal(y, x)
    (y * torch.randn_like(y)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in filter.parameters())


def test_bad_input_is_named() -> None:
    for case in CASES:
        filter = build(case, causal=False)
        with pytest.raises(ValueError, match=r"batch, tokens, dim.*\(13, 6\)"):
            filter(tokens()[0])
        with pytest.raises(ValueError, match=r"padding_mask must be boolean.*\(3, 12\)"):
            filter(tokens(), padding_mask(3, 12))
        with pytest.raises(ValueError, match=r"padding_mask must be boolean.*int64"):
            filter(tokens(), padding_mask(3, 13).long())
        with pytest.raises(ValueError, match="x is on cpu and padding_mask on meta"):
            filter(tokens(), padding_mask(3, 13).to("meta"))
        with pytest.raises(ValueError, match=r"x must be a tensor.*got ndarray"):
            filter(tokens().numpy())
        with pytest.raises(ValueError, match="x is a nested tensor; pad it"):
            filter(torch.nested.nested_tensor([*tokens()], layout=torch.jagged))
    for case in ("adaptive", "depthwise-odd", "haar", "fir-odd-per-dim"):
        with pytest.raises(ValueError, match=f"dim={DIM}.*4"):
            build(case, causal=False)(torch.randn(2, 9, 4))
    with pytest.raises(ValueError, match="zero_init must be True or False; got 'false'"):
        FilterBank(zero_init="false")  # type: ignore[arg-type]
    for elsewhere in (
        FilterBank(device="meta"),
        DepthwiseFilter(DIM, device="meta"),
        AdaptiveFilterBank(DIM, device="meta"),
    ):
        for dtype in (torch.float32, torch.float64):
            with pytest.raises(ValueError, match=r"x is on cpu and .* on meta"):
                elsewhere(tokens(dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replaced_kernels_of_depthwise_must_fit(dtype: torch.dtype) -> None:
    """The native operator (float32) would read beyond them, torch's would repeat a single one."""
    filter, x = build("depthwise-even", causal=True, dtype=dtype), tokens(dtype=dtype)
    for kernels in (filter.kernels[:1], filter.kernels[:4], filter.kernels[0]):
        for options in ({}, {"output_final_state": True}):
            with pytest.raises(ValueError, match=rf"\({DIM}, K\).*got"):
                functional_call(filter, {"kernels": kernels}, (x,), options)
    filter.kernels = torch.nn.Parameter(filter.kernels[:4].detach())
    with pytest.raises(ValueError, match=rf"\({DIM}, K\).*got \(4, 4\)"):
        filter(x)


@every_filter
def test_a_window_with_its_neighbours_gives_what_the_whole_gives(case: str) -> None:
    for causal in (True, False):
        filter, x = build(case, causal=causal), tokens()
        window = torch.nn.functional.pad(x, (0, 0, *filter.extent))
        if case.startswith("adaptive"):
            with pytest.raises(NotImplementedError, match=r"'adaptive'.*filtered.*FilterStream"):
                filter.convolve(window)
        else:
            torch.testing.assert_close(filter.convolve(window), filter.filtered(x))


@pytest.mark.parametrize(("case", "causal"), spread(CASES, [True, False]))
def test_no_tokens_have_gradients_of_zero(case: str, causal: bool) -> None:
    filter = build(case, causal=causal)
    for x in (tokens(2, 0), tokens(0, 5)):
        calls = [partial(filter, x), partial(filter, x, torch.zeros(x.shape[:2]).bool())]
        if causal and not case.startswith("adaptive"):  # which has no state
            calls.append(lambda x=x: filter(x, output_final_state=True)[0])
        if len(x):
            calls.append(lambda x=x: torch.vmap(lambda item: filter(item[None])[0])(x))
        for call in calls:
            y = call()
            assert y.shape == x.shape
            if not filter.num_parameters:
                continue
            grads = torch.autograd.grad(y.sum(), list(filter.parameters()))  # none may be unused
            assert not any(grad.any() for grad in grads)


def test_averages_do_not_overflow_in_half_precision() -> None:
    x = torch.full((1, 80, 64), 2000.0, dtype=torch.float16)
    y = HaarFilter(64, causal=True)(x)
    assert torch.equal(y[:, -1], x[:, -1])  # the average of equal values
    # Averages replace tokens: no difference is formed, which could overflow or lose digits.
    for dtype, pair in ((torch.float16, [-60000, 60000]), (torch.bfloat16, [-99.5, 100])):
        x = torch.tensor(pair, dtype=dtype).view(1, 2, 1)
        y = HaarFilter(1, levels=1, causal=True)(x)
        assert y[0, 1, 0] == (x[0, 0, 0] + x[0, 1, 0]) / 2


@pytest.mark.parametrize("name", ["bank", "multiscale", "fir", "depthwise", "haar"])
def test_autocast_of_the_other_half_type(name: str) -> None:
    options = {"dim": 8} if name in ("depthwise", "haar") else {}
    kinds = torch.float16, torch.bfloat16
    for own, cast in (kinds, kinds[::-1]):
        filter = make_filter(name, **options).to(own)
        x = torch.randn(1, 9, 8, dtype=own)
        causal = make_filter(name, causal=True, **options).to(own)
        with torch.autocast("cpu", dtype=cast):
            assert filter(x).isfinite().all()
            assert filter(x, cu_seqlens=torch.tensor([0, 4, 9])).isfinite().all()
            assert FilterStream(causal).step(x).isfinite().all()
            _, state = causal(x, output_final_state=True)
            assert causal(x, initial_state=state).isfinite().all()


def test_autocast_does_not_round_the_kernel_of_fir() -> None:
    filter, x = FIRFilter(5, 3), tokens(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert filter.collapsed().dtype == torch.float32
        torch.testing.assert_close(filter(x), filter(x.float()).bfloat16(), rtol=1e-2, atol=1e-2)


def test_a_filter_in_half_precision_is_collapsed_in_single() -> None:
    half, x = FIRFilter(5, 3).bfloat16(), tokens()
    torch.testing.assert_close(half(x), copy.deepcopy(half).float()(x))


def test_a_response_is_on_the_cpu_whatever_the_default_device() -> None:
    for case in CASES:
        filter = build(case, causal=True)
        with torch.device("meta"):
            response = filter.frequency_response(8)
            assert centre_frequency(response).device.type == "cpu"


def test_a_filter_without_a_name_can_be_shown() -> None:
    class Own(FilterBank):
        pass

    class Other(TokenFilter):
        pass

    assert "num_filters" in repr(Own())
    assert repr(Other()) == "Other(name='Other', causal=False)"


def test_a_filter_whose_taps_do_not_fit_is_refused() -> None:
    class Short(TokenFilter):
        """It says that it reads one token more than it does."""

        def taps(self) -> list[Tensor]:
            return [torch.ones(1, 2)]

        def convolve(self, window: Tensor) -> Tensor:
            return window[:, :1]  # which could be added to all tokens

    with pytest.raises(
        ValueError, match=r"'Short' returned \(2, 1, 8\) .*\(2, 6, 8\).*\(2, 5, 8\)"
    ):
        Short()(torch.randn(2, 5, 8))


def test_autocast_does_not_round_double_precision() -> None:
    for case, dtype in (("bank-odd", torch.float64), ("depthwise-odd", torch.float32)):
        filter, x = build(case, causal=False, dtype=torch.float64), tokens(dtype=dtype)
        y = filter(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(filter(x), y)
