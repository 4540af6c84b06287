"""Activation checkpointing: a repeated call has the padding and packing of its pass, or is refused.

A wrong one would give wrong gradients without an error.
"""

import gc
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint

from spaudio.filters import FilterHandle, insert_filters
from spaudio.filters.insertion.passes import SEVERAL, UNKNOWN, Passes
from tests.filters.cases import open_gains
from tests.filters.hf_models import text_model

TOKENS = 9


def ends(*where: int) -> Tensor:
    return torch.tensor([0, *where, TOKENS])


def real(*lengths: int) -> Tensor:
    return torch.arange(TOKENS) < torch.tensor(lengths).unsqueeze(1)


class Layer(nn.Linear):
    """Takes a mask and uses none."""

    def forward(self, x: Tensor, attention_mask: Any = None) -> Tensor:
        return super().forward(x)


class Model(nn.Module):
    """Knows the padding and the packing, of which its layer is told nothing."""

    def __init__(self, inner: Tensor | None = None, new: bool = False) -> None:
        super().__init__()
        self.layer: nn.Linear = nn.Linear(4, 4) if inner is None else Layer(4, 4)
        self.inner = () if inner is None else (inner,)
        self.new = new  # whether the layer gets other tokens each time
        self.checkpointed = True

    def forward(self, x: Tensor, attention_mask: Any = None, cu_seq_lens_q: Any = None) -> Any:
        if self.checkpointed:
            return checkpoint(self.part, x, *self.inner, use_reentrant=False)
        return self.part(x, *self.inner)

    def part(self, x: Tensor, *inner: Tensor) -> Any:
        return self.layer(x + 0 if self.new else x, *inner)


def check(run: Callable[[Any, FilterHandle, Tensor, Tensor], Tensor], **options: Any) -> None:
    """Compares the gradients of two passes with those without checkpointing."""
    torch.manual_seed(0)
    model = Model(**options)
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    x, y = torch.randn(2, 1, TOKENS, 4, requires_grad=True).unbind()
    found = []
    for model.checkpointed in (True, False):
        loss = run(model, handle, x, y).square().sum()
        found.append(torch.autograd.grad(loss, list(handle.parameters())))
    torch.testing.assert_close(*found)


def test_passes_with_tokens_of_their_own_have_their_own_packing() -> None:
    check(lambda model, _, x, y: model(x) + model(y, cu_seq_lens_q=ends(4)))

    def evaluated(model: Any, _: FilterHandle, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = model(x, cu_seq_lens_q=ends(4))
        with torch.no_grad():
            model(x, cu_seq_lens_q=ends(2))  # is not repeated
        return out

    check(evaluated)


@pytest.mark.parametrize("first", [None, ends(4)])
def test_the_same_tokens_in_two_packings_are_refused(first: Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"'layer' is recomputed .* several packings.* a copy of"):
        check(
            lambda model, _, x, y: model(x, cu_seq_lens_q=first) + model(x, cu_seq_lens_q=ends(2))
        )
    check(  # the remedy
        lambda model, _, x, y: (
            model(x, cu_seq_lens_q=first) + model(x.clone(), cu_seq_lens_q=ends(2))
        )
    )


def test_boundaries_that_are_filled_anew_before_the_backward_pass_are_refused() -> None:
    def run(model: Any, _: FilterHandle, x: Tensor, y: Tensor) -> Tensor:
        boundaries = ends(4)
        out = model(x, cu_seq_lens_q=boundaries)
        boundaries.copy_(ends(2))
        return out + model(y, cu_seq_lens_q=boundaries)  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match=r"'layer' is recomputed .* packed sequences"):
        check(run)


@pytest.mark.parametrize("new", [False, True])
def test_passes_that_share_the_mask_of_a_layer(new: bool) -> None:
    """That mask tells no padding. In a part of a layer, the tokens are others each time."""
    options = {"inner": torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None], "new": new}

    def run(model: Any, _: FilterHandle, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = model(x, attention_mask=real(5)) + model(y, attention_mask=real(length))
        return out

    length = 5
    check(run, **options)
    length = 7
    if not new:
        check(run, **options)
    with pytest.raises(ValueError, match=r"its mask were filtered with several paddings"):
        check(lambda model, handle, x, _: run(model, handle, x, x), **options)


def test_an_evaluation_with_another_padding_leaves_the_mask_of_a_layer_as_it_was() -> None:
    options = {"inner": torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None]}

    def run(model: Any, _: FilterHandle, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            model(y, attention_mask=real(7))
        out: Tensor = model(x, attention_mask=real(5))
        return out

    check(run, **options, new=True)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("given", ["nothing", "positions"])
def test_boundaries_count_before_the_positions_of_a_layer(given: str, reentrant: bool) -> None:
    """The first pass was decided by boundaries, which a repeated layer is not given."""

    class Positioned(nn.Linear):
        def forward(self, x: Tensor, position_ids: Any = None) -> Tensor:
            return super().forward(x)

    class Around(nn.Module):
        checkpointed = True

        def __init__(self) -> None:
            super().__init__()
            self.layer = Positioned(4, 4)

        def forward(self, x: Tensor, cu_seq_lens_q: Any = None) -> Any:
            positions = torch.arange(TOKENS)[None] if given == "positions" else None
            if not self.checkpointed:
                return self.layer(x, positions)
            return checkpoint(self.layer, x, positions, use_reentrant=reentrant)

    torch.manual_seed(0)
    model, found = Around(), []
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    x = torch.randn(1, TOKENS, 4, requires_grad=True)
    for model.checkpointed in (False, True):
        model.zero_grad()
        loss = model(x, cu_seq_lens_q=ends(4)).square().sum()
        if model.checkpointed and reentrant:  # whose first pass has no gradients
            with pytest.raises(ValueError, match=r"packed sequences.* pass cu_seq_lens_q to the"):
                loss.backward()
            return
        loss.backward()
        found.append([p.grad for p in handle.parameters()])
    torch.testing.assert_close(*found)


def test_a_parameter_does_not_identify_a_call() -> None:
    """A layer of learned queries: passes with other paddings share its first argument."""

    class Queries(nn.Linear):
        def forward(self, queries: Tensor, x: Tensor) -> Tensor:
            return super().forward(queries + x)

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.queries = Queries(4, 4), nn.Parameter(torch.zeros(1, TOKENS, 4))

        def forward(self, x: Tensor, attention_mask: Any, repeated: bool = True) -> Any:
            if not repeated:
                return self.layer(self.queries, x)
            return checkpoint(lambda x: self.layer(self.queries, x), x, use_reentrant=True)

    model = Around()
    insert_filters(model, "layer", kernel_size=3, zero_init=False)
    x = torch.randn(1, TOKENS, 4, requires_grad=True)
    model(x, real(5), repeated=False).sum().backward()
    with pytest.raises(ValueError, match=r"'layer' is recomputed .* knows the padding"):
        model(x + 0, real(7)).sum().backward()


def test_a_repeated_call_compares_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for a GPU. The mask of the layer is a new one each time."""
    layer = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
    model = nn.Sequential(layer)
    insert_filters(model, "0", kernel_size=3)
    x = torch.randn(1, TOKENS, 4, requires_grad=True)
    loss = checkpoint(layer, x, src_key_padding_mask=~real(5), use_reentrant=False).sum()
    monkeypatch.setattr(torch, "equal", None)
    loss.backward()


def test_a_repeated_model_has_what_it_is_given_again() -> None:
    """An earlier pass with the same tokens had other boundaries."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, cu_seq_lens_q: Any = None) -> Any:
            return self.layer(x)

    torch.manual_seed(0)
    model = Around()
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    x, none = torch.randn(1, TOKENS, 4), torch.ones(1, requires_grad=True)
    parameters, found = list(handle.parameters()), []
    model(x, cu_seq_lens_q=ends(2)).sum().backward()
    for repeated in (False, True):
        run = lambda _: model(x, cu_seq_lens_q=ends(4))  # noqa: E731
        y = checkpoint(run, none, use_reentrant=True) if repeated else run(none)
        model.zero_grad()
        y.square().sum().backward()
        found.append([p.grad for p in parameters])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("reentrant", [False, True])
def test_nested_checkpoints_with_a_mask_of_the_model_are_refused(reentrant: bool) -> None:
    """In the backward pass, the outer one runs a first pass of the inner one."""
    model = Model(inner=torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None], new=True)
    insert_filters(model, "layer", kernel_size=3, zero_init=False)
    x, y = torch.randn(2, 1, TOKENS, 4, requires_grad=True).unbind()
    losses = [
        checkpoint(model, given, real(length), use_reentrant=reentrant).sum()
        for given, length in ((x, 5), (y, 7))
    ]
    with pytest.raises(ValueError, match="is recomputed in the backward pass"):
        sum(losses).backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_that_are_compiled_by_themselves(reentrant: bool) -> None:
    """Compiled anew for the recomputation, they would take padding for tokens."""

    class Around(nn.Module):
        checkpointed = True

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

        def forward(self, x: Tensor, attention_mask: Any = None) -> Any:
            for layer in self.layers:
                again = self.checkpointed
                x = checkpoint(layer, x, use_reentrant=reentrant) if again else layer(x)
            return x

    torch._dynamo.reset()  # after many compilations, it would run the layers eagerly
    torch.manual_seed(0)
    model, found = Around(), []
    handle = insert_filters(model, "layers", kernel_size=3, zero_init=False)
    for layer in model.layers:
        layer.compile(backend="eager")
    x = torch.randn(1, TOKENS, 4, requires_grad=True)
    for model.checkpointed in (True, False):
        found.append(torch.autograd.grad(model(x).sum(), list(handle.parameters()))
                     if not reentrant else None)  # fmt: skip
    if not reentrant:
        torch.testing.assert_close(*found)
    with torch.no_grad():
        model(x, real(5))
    model.checkpointed = True
    model(x).sum().backward()  # an evaluation leaves training as it was
    with pytest.raises(RuntimeError, match="compiled by itself and recomputed"):
        model(x, real(5)).sum().backward()


def test_a_whole_model_with_checkpointed_layers_is_compiled_once() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, found, graphs = Model(), [], CompileCounter()
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    x = torch.randn(1, TOKENS, 4, requires_grad=True)
    for run in (model, compiled, compiled):
        loss = run(x, real(5)).square().sum()
        found.append(torch.autograd.grad(loss, list(handle.parameters())))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    assert graphs.frame_count == 1


def test_a_block_is_over_where_a_compiled_layer_is_repeated() -> None:
    torch._dynamo.reset()
    model = Model()
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    model.layer.compile(backend="eager")
    x = torch.randn(1, TOKENS, 4, requires_grad=True)
    with handle.disabled():
        loss = checkpoint(model.layer, x, use_reentrant=True).sum()
    with pytest.raises(RuntimeError, match="compiled by itself and recomputed"):
        loss.backward()
    with handle.padding(~real(5)):
        loss = checkpoint(model.layer, x, use_reentrant=True).sum()
    with (
        handle.padding(~real(7)),  # of another pass
        pytest.raises(RuntimeError, match="compiled by itself and recomputed"),
    ):
        loss.backward()


def test_a_pass_before_the_first_block_has_no_stated_mask() -> None:
    def run(model: Any, handle: FilterHandle, x: Tensor, y: Tensor) -> Tensor:
        out = model(x, attention_mask=real(5))
        with handle.padding(~real(7)):
            return out + model(y)  # type: ignore[no-any-return]

    check(run)
    with pytest.raises(ValueError, match=r"'layer' is recomputed .* block of handle\.padding"):
        check(lambda model, handle, x, _: run(model, handle, x, x))


class Block(nn.Module):
    """Takes a mask of queries and keys in the name of a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        out: Tensor = x + self.linear(self.norm(x))
        return out


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("layer", ["block.norm", "block.linear", "block"])
def test_a_repeated_module_around_the_layer_may_not_know_the_padding(
    layer: str, reentrant: bool
) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()
            self.checkpointed = True

        def forward(self, x: Tensor, padding_mask: Tensor) -> Any:
            mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
            if self.checkpointed:
                return checkpoint(self.block, x, mask, use_reentrant=reentrant)
            return self.block(x, mask)

    model, x = Outer(), torch.randn(2, TOKENS, 4, requires_grad=True)
    handle = insert_filters(model, layer, kernel_size=3, zero_init=False)
    found = []
    for model.checkpointed in (False, True):
        model.zero_grad()
        loss = model(x, ~real(9, 5))[real(9, 5)].square().sum()
        if model.checkpointed and (reentrant or layer == "block.linear"):
            with pytest.raises(ValueError, match=r"is recomputed .* use_reentrant=False"):
                loss.backward()
            return
        loss.backward()
        found.append([parameter.grad for parameter in handle.parameters()])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llama", "layers.*.input_layernorm"),
        ("gpt2", "h.*.ln_1"),
        ("llama", "layers.*.self_attn"),
        ("bert", "encoder.layer.*.attention.self"),
    ],
)
def test_filters_before_and_in_attention_of_checkpointed_layers(name: str, layers: str) -> None:
    ids = torch.randint(3, 40, (2, TOKENS))
    found = []
    for checkpointed in (False, True):
        model, _ = text_model(name, "eager")
        handle = insert_filters(model, layers, causal=True, kernel_size=4, num_filters=4)
        open_gains(model)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        outs = [model(input_ids=i, attention_mask=mask.long())[0]
                for i, mask in ((ids, real(9, 5)), (ids.flip(1), real(3, 9)))]  # fmt: skip
        torch.stack(outs).square().sum().backward()  # type: ignore[no-untyped-call]
        found.append([parameter.grad for parameter in handle.parameters()])
    torch.testing.assert_close(*found)


def test_what_was_found_goes_with_its_tensor_and_its_copy_is_empty() -> None:
    passes, given, value = Passes(), torch.zeros(2), torch.ones(2)
    assert passes.recall(given, "a") is passes.recall(None, "a") is UNKNOWN
    passes.keep(given, a=value, b=None)
    passes.keep(given, a=value.clone(), b=None)
    assert passes.recall(given, "b") is None
    assert torch.equal(passes.recall(given, "a"), value)
    passes.keep(given, a=value, b=value)
    assert passes.recall(given, "b") is SEVERAL
    given += 1
    assert passes.recall(given, "a") is UNKNOWN
    passes.keep(given, a=value, b=value)
    assert passes.recall(given, "b") is value
    value += 1
    assert passes.recall(given, "b") is UNKNOWN
    for copy in (deepcopy(passes), pickle.loads(pickle.dumps(passes))):
        assert copy.recall(given, "a") is UNKNOWN
    passes.keep(given, a=given, b=given[:1])  # which would keep it alive
    del given, value
    gc.collect()
    assert not len(passes._calls)
