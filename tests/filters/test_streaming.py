"""Token by token equals the whole sequence at once."""

import pytest
import torch
from torch.nn.utils import prune

from spaudio.filters import FilterBank, FilterStream, NoFilter
from tests.filters.cases import CASES, DIM, build


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_stream_equals_batch(case: str) -> None:
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        filter = build(case, causal=True, dtype=dtype)
        x = torch.randn(3, 17, DIM, dtype=dtype)
        stream = FilterStream(filter)
        for pieces in ([1] * 17, [0, 5, 1, 0, 1, 7, 3], [17]):
            y = torch.cat([stream.step(piece) for piece in torch.split(x, pieces, dim=1)], dim=1)
            torch.testing.assert_close(y, filter(x), rtol=tolerance, atol=tolerance)
            stream.reset()


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(ValueError, match="a stream needs a filter; got Linear"):
        FilterStream(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'bank' is not causal.*causal=True"):
        FilterStream(build("bank-even", causal=False))
    stream = FilterStream(build("bank-even", causal=True))
    stream.step(torch.randn(2, 3, DIM))
    with pytest.raises(ValueError, match=r"\(4, 1, 6\) and .* do not continue.*batch 2, dim 6"):
        stream.step(torch.randn(4, 1, DIM))
    with pytest.raises(ValueError, match=r"bfloat16 do not continue.*float32"):
        stream.step(torch.randn(2, 1, DIM).bfloat16())
    with pytest.raises(ValueError, match="batch, tokens, dim"):
        stream.step(torch.randn(2, DIM))
    with pytest.raises(ValueError, match=r"x is on meta and the earlier tokens .* on cpu"):
        stream.step(torch.randn(2, 1, DIM, device="meta"))
    for case in ("adaptive", "bank-even"):
        with pytest.raises(ValueError, match="x is on meta and the filter on cpu"):
            FilterStream(build(case, causal=True)).step(torch.randn(2, 1, DIM, device="meta"))
    for case in ("adaptive", "bank-per-dim", "depthwise-odd", "haar", "fir-odd-per-dim"):
        with pytest.raises(ValueError, match=rf"dim={DIM}.*\(2, 9, 4\)"):
            FilterStream(build(case, causal=True)).step(torch.randn(2, 9, 4))


@torch.no_grad()
def test_a_filter_that_sees_no_future_token_can_be_streamed() -> None:
    """Whether or not it was made with ``causal=True``, which does not change it."""
    x = torch.randn(2, 5, DIM)
    for filter in (NoFilter(), FilterBank(7, 1)):
        stream = FilterStream(filter)
        y = torch.cat([stream.step(piece) for piece in x.split(2, dim=1)], dim=1)
        torch.testing.assert_close(y, filter(x))
        y, state = filter(x, output_final_state=True)
        torch.testing.assert_close(y, filter(x))
        assert state.shape == (2, 0, DIM)
        torch.testing.assert_close(filter.step(x, state), filter(x))


@torch.no_grad()
def test_sums_do_not_overflow_in_half_precision() -> None:
    """The response of a kernel exceeds float16, the result does not."""
    filter = FilterBank(1, 4, causal=True).half()
    x = torch.full((1, 6, 1), 1e4, dtype=torch.float16)
    for gain in (0.01, 0.0):
        filter.kernels.fill_(2)
        filter.gains.fill_(gain)
        whole, stream = filter(x), FilterStream(filter)
        assert whole.isfinite().all()
        y = torch.cat([stream.step(token) for token in x.split(1, dim=1)], dim=1)
        assert torch.equal(y, whole)
        y, state = filter(x[:, :2], output_final_state=True)
        assert torch.equal(torch.cat([y, filter.step(x[:, 2:], state)], dim=1), whole)


@torch.no_grad()
def test_autocast_does_not_round_the_sums_of_a_stream() -> None:
    filter, x = build("bank-even", causal=True), torch.randn(2, 5, DIM)
    expected = filter(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(FilterStream(filter).step(x), expected)


def test_state_does_not_grow() -> None:
    """A stream of a plain filter keeps K - 1 tokens, however long it runs."""
    stream = FilterStream(build("bank-odd", causal=True))
    for _ in range(5):
        stream.step(torch.randn(2, 50, DIM))
    assert stream._past is not None
    assert stream._past.shape == (2, 4, DIM)
    assert stream._past.untyped_storage().nbytes() == 2 * 4 * DIM * 4


@torch.no_grad()
def test_a_stream_has_the_weights_that_a_hook_prepares() -> None:
    filter = build("depthwise-even", causal=True)
    prune.l1_unstructured(filter, "kernels", amount=0.5)
    filter.kernels_orig.mul_(2)  # as an optimizer step: `kernels` is computed in the next call
    x, stream = torch.randn(3, 17, DIM), FilterStream(filter)
    y = torch.cat([stream.step(piece) for piece in torch.split(x, 4, dim=1)], dim=1)
    torch.testing.assert_close(y, filter(x))
