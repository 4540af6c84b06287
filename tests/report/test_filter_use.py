import pytest
import torch

from spaudio.filters import AdaptiveFilterBank, DepthwiseFilter, FIRFilter, make_filter
from spaudio.report.filter_use import kernel_activity, switched_off
from tests.filters.cases import CASES, DIM, build, padding_mask

BANKS = [name for name in CASES if name.startswith(("bank", "multiscale", "adaptive"))]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", [*BANKS, "depthwise-odd", "fir-even", "fir-odd-per-dim"])
@torch.no_grad()
def test_activity_is_what_a_filter_adds_with_one_kernel_alone(case: str, causal: bool) -> None:
    filter = build(case, causal=causal)
    x, mask = torch.randn(3, 9, DIM), padding_mask(3, 9)
    found = kernel_activity(filter, x, mask)
    if isinstance(filter, DepthwiseFilter) or case == "fir-odd-per-dim":
        torch.testing.assert_close(found, filter.filtered(x, mask).abs())
        return
    if isinstance(filter, FIRFilter):
        expected = filter.filtered(x, mask).square().mean(dim=2, keepdim=True).sqrt()
        torch.testing.assert_close(found, expected)
        return
    bank = filter.bank if isinstance(filter, AdaptiveFilterBank) else filter
    gains = bank.gains.clone()
    for kernel in range(gains.shape[-1]):
        bank.gains.zero_()
        bank.gains[..., kernel] = gains[..., kernel]
        alone = filter.filtered(x, mask).square().mean(dim=2).sqrt()
        torch.testing.assert_close(found[..., kernel], alone, atol=1e-5, rtol=1e-4)


def test_filters_that_are_off_change_nothing() -> None:
    filter = make_filter("bank", num_filters=3, kernel_size=2)
    x = torch.randn(1, 4, 2)
    with switched_off([filter]):
        assert torch.equal(filter(x), x)
    assert not torch.equal(filter(x), x)
