"""Packed and continued sequences, in the conventions of short convolutions."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from spaudio.filters import DepthwiseFilter, TokenFilter, make_filter
from tests.filters.cases import CASES, DIM, build, spread

PLAIN = [case for case in CASES if not case.startswith("adaptive")]
LENGTHS = [[4, 1, 9], [1, 0, 2, 13], [17], [40, 3]]


def packed(lengths: list[int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ends = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randn(1, int(ends[-1]), DIM, generator=generator).to(dtype), ends


def alone(filter: TokenFilter, x: Tensor, ends: Tensor) -> Tensor:
    pieces = [filter(x[:, a:b]) for a, b in pairwise(ends.tolist()) if b > a]
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize(
    ("case", "causal", "lengths"),
    spread([c for c in PLAIN for _ in (0, 1)], [True, False], LENGTHS),
)
def test_packed_equals_each_alone(case: str, causal: bool, lengths: list[int]) -> None:
    filter = build(case, causal=causal, dtype=torch.float64)
    x, ends = packed(lengths)
    gradients = []
    for together in (True, False):
        x = x.detach().requires_grad_()
        y = filter(x, cu_seqlens=ends.int()) if together else alone(filter, x, ends)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        inputs = [x, *filter.parameters()]
        gradients.append([y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)])
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("case", "causal"), spread(PLAIN, [True, False]))
def test_memory_outside_the_sequences_is_not_read(case: str, causal: bool) -> None:
    filter = build(case, causal=causal)
    x, ends = packed([4, 1, 9], torch.float32)
    memory = torch.full((3, 20, 2 * DIM), torch.nan)
    memory[1, 2:16, ::2] = x[0]
    view = memory[1:2, :, ::2]  # strided, with NaN before, between and after
    y = filter(view, cu_seqlens=ends + 2)
    torch.testing.assert_close(y[:, 2:16], filter(x, cu_seqlens=ends), rtol=1e-5, atol=1e-5)
    assert y[:, [0, 1, 16, 19]].isnan().all()
    assert torch.equal(y[:, 2:16], filter(view, cu_seqlens=ends + 2)[:, 2:16])
    # Tokens before and after the sequences pass through.
    x = torch.randn(1, 20, DIM)
    y, outside = filter(x, cu_seqlens=ends + 2), [0, 1, 16, 17, 18, 19]
    assert torch.equal(y[:, outside], x[:, outside])


@pytest.mark.parametrize("case", PLAIN)
@torch.no_grad()
def test_prefill_and_decode_equal_the_whole(case: str) -> None:
    filter = build(case, causal=True, dtype=torch.float64)
    left, _ = filter.extent
    x = torch.randn(2, 30, DIM, dtype=torch.float64)
    mask = torch.zeros(2, 30, dtype=torch.bool)
    mask[1, :3] = True  # padding on the left
    for prefill in (3, 6, 25):
        y, state = filter(x[:, :prefill], mask[:, :prefill], output_final_state=True)
        assert state.shape == (2, left, DIM)
        # A slot of a larger cache, updated in place.
        slots = torch.full((3, left + 2, DIM), torch.nan, dtype=torch.float64)
        slot = slots[1:, 2:]
        slot.copy_(state)
        steps = [filter.step(x[:, t : t + 1], slot) for t in range(prefill, 28)]
        steps.append(filter.step(x[:, 28:], slot))  # two at once
        whole, end = filter(x, mask, output_final_state=True)
        torch.testing.assert_close(torch.cat([y, *steps], dim=1), whole)
        torch.testing.assert_close(slot, end)
        torch.testing.assert_close(whole, filter(x, mask))
    right = torch.zeros(2, 30, dtype=torch.bool)
    right[1, 20:] = True  # padding on the right
    _, state = filter(x, right, output_final_state=True)
    _, alone = filter(x[1:, :20], output_final_state=True)
    torch.testing.assert_close(state[1:], alone)
    torch.testing.assert_close(state[:1], filter(x[:1], output_final_state=True)[1])


def test_gradients_do_not_pass_through_the_state() -> None:
    filter, x = build("bank-even", causal=True), torch.randn(2, 5, DIM, requires_grad=True)
    state = torch.zeros(2, 3, DIM)
    filter.step(x, state)
    assert torch.equal(state, x[:, -3:])
    assert not state.requires_grad


@pytest.mark.parametrize("case", PLAIN)
def test_packed_sequences_are_continued(case: str) -> None:
    filter = build(case, causal=True, dtype=torch.float64)
    whole, ends = packed([6, 2, 11, 3])
    cuts = torch.tensor([0, 4, 0, 9, 1]).cumsum(0)  # of the first parts
    pieces = [whole[:, a:b] for a, b in pairwise(ends.tolist())]
    lengths = cuts.diff().tolist()
    first = torch.cat([p[:, :n] for p, n in zip(pieces, lengths, strict=True)], dim=1)
    second = torch.cat([p[:, n:] for p, n in zip(pieces, lengths, strict=True)], dim=1)
    y, state = filter(first, cu_seqlens=cuts, output_final_state=True)
    rest, end = filter(second, cu_seqlens=ends - cuts, initial_state=state, output_final_state=True)
    expected, final = filter(whole, cu_seqlens=ends, output_final_state=True)
    parts = [
        part
        for (a, b), (c, d) in zip(
            pairwise(cuts.tolist()), pairwise((ends - cuts).tolist()), strict=True
        )
        for part in (y[:, a:b], rest[:, c:d])
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)
    torch.testing.assert_close(end, final)


@pytest.mark.parametrize(("case", "causal"), spread(PLAIN, [True, False]))
def test_strided_views_and_no_tokens(case: str, causal: bool) -> None:
    filter = build(case, causal=causal)
    x = torch.randn(DIM, 24, 3).permute(2, 1, 0)[:, ::2]
    assert not x.is_contiguous()
    y = filter(x)
    assert torch.equal(y, filter(x))
    torch.testing.assert_close(y, filter(x.contiguous()))
    assert filter(x[:, :0]).shape == (3, 0, DIM)
    if causal:
        _, state = filter(x, output_final_state=True)
        y, end = filter(x[:, :0], initial_state=state, output_final_state=True)
        assert y.shape == (3, 0, DIM)
        assert torch.equal(end, state)
    assert filter(x[:0]).shape == (0, 12, DIM)


def test_what_does_not_fit_is_named() -> None:
    filter, centred = build("bank-even", causal=True), build("bank-even", causal=False)
    x, ends = packed([4, 5], torch.float32)
    for run, message in (
        (lambda: build("adaptive", causal=True)(x, cu_seqlens=ends), "'adaptive' attends to all"),
        (lambda: centred(x, output_final_state=True), "'bank' is not causal.*no state"),
        (lambda: centred.step(x, x[:, :1]), "'bank' is not causal.*no state"),
        (lambda: filter(x, ends.bool()[:1].expand(1, 9), cu_seqlens=ends), "one of cu_seqlens and"),
        (lambda: filter(x.expand(2, -1, -1), cu_seqlens=ends), r"\(1, tokens, dim\)"),
        (lambda: filter(x, cu_seqlens=ends.float()), "int32 or int64.*float32"),
        (lambda: filter(x, cu_seqlens=[0, 9]), "cu_seqlens must be a tensor; got list"),
        (lambda: filter(x, cu_seqlens=ends.to("meta")), "x is on cpu and cu_seqlens on meta"),
        (lambda: filter(x, [False] * 9), "padding_mask must be a tensor; got list"),
        (lambda: filter(x, cu_seqlens=ends[:1]), r"\(sequences \+ 1,\).*\(1,\)"),
        (lambda: filter(x, cu_seqlens=ends + 1), r"within 0 \.\.\. 9 tokens.*\[1, 5, 10\]"),
        (lambda: filter(x, cu_seqlens=torch.tensor([-2, 9])), r"within 0 \.\.\. 9 tokens"),
        (lambda: filter(x, cu_seqlens=torch.tensor([0, 5, 4])), "must not decrease"),
        (lambda: filter(x, initial_state=x), r"\(1, 3, 6\) of torch.float32.*\(1, 9, 6\)"),
        (lambda: filter.step(x, x[:, :3].double()), "of torch.float64"),
        (lambda: filter.step(x, x[:, :3].to("meta")), "x is on cpu and the state on meta"),
        (lambda: filter(x, initial_state=x[:, :3].to("meta")), "x is on cpu and the state on meta"),
        (lambda: filter.step(x, None), r"the state must be a tensor.*\(1, 3, 6\).*got NoneType"),
        (lambda: filter.step(x[0], x[:, :3]), r"batch, tokens, dim.*\(9, 6\)"),
        (lambda: filter.step(x.numpy(), x[:, :3]), "x must be a tensor.*got ndarray"),
    ):
        with pytest.raises(ValueError, match=message):
            run()


@pytest.mark.parametrize("causal", [True, False])
def test_activation_and_residual_of_depthwise(causal: bool) -> None:
    x = torch.randn(2, 9, DIM)
    functions = {None: lambda y: y, "relu": torch.relu, "silu": torch.nn.functional.silu,
                 "gelu": torch.nn.functional.gelu}  # fmt: skip
    for activation, function in functions.items():
        filter = DepthwiseFilter(DIM, causal=causal, activation=activation)
        plain = DepthwiseFilter(DIM, causal=causal)
        plain.load_state_dict(filter.state_dict())
        torch.testing.assert_close(filter(x), x + function(plain.filtered(x)))
        twin = make_filter(**filter.config())
        twin.load_state_dict(filter.state_dict())
        assert torch.equal(twin(x), filter(x))
    named = DepthwiseFilter(DIM, activation="identity", zero_init=True)
    assert make_filter(**named.config()).config() == named.config()
    assert torch.equal(named(x), x)
    with pytest.raises(ValueError, match=r"None or one of.*'identity'.*'tanh'"):
        DepthwiseFilter(DIM, activation="tanh")
    with pytest.raises(ValueError, match="no gradient through activation='relu'"):
        DepthwiseFilter(DIM, activation="relu", zero_init=True)


def test_packed_compiles_as_one_graph() -> None:
    filter = build("bank-even", causal=False)
    compiled = torch.compile(filter, backend="eager", fullgraph=True)
    x, ends = packed([4, 1, 9], torch.float32)
    torch.testing.assert_close(compiled(x, cu_seqlens=ends), filter(x, cu_seqlens=ends))
