"""Token by token equals the whole sequence at once."""

import pytest
import torch

from spaudio.filters import FilterStream
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
    for case in ("adaptive", "bank-per-dim", "depthwise-odd", "haar", "fir-odd-per-dim"):
        with pytest.raises(ValueError, match=rf"dim={DIM}.*\(2, 9, 4\)"):
            FilterStream(build(case, causal=True)).step(torch.randn(2, 9, 4))


def test_state_does_not_grow() -> None:
    """A stream of a plain filter keeps K - 1 tokens, however long it runs."""
    stream = FilterStream(build("bank-odd", causal=True))
    for _ in range(5):
        stream.step(torch.randn(2, 50, DIM))
    assert stream._past is not None
    assert stream._past.shape == (2, 4, DIM)
    assert stream._past.untyped_storage().nbytes() == 2 * 4 * DIM * 4
