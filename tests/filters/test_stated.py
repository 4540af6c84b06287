"""Padding that the user states: ``handle.padding(mask)``, and a function as ``padding_mask``."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spaudio.filters import (
    FilterBank,
    FilterHandle,
    find_filters,
    insert_filters,
    load_filters,
)

TOKENS = 9
PADDING = torch.arange(TOKENS) >= torch.tensor([[TOKENS], [5]])


class Lengths(nn.Module):
    """A model that is given lengths, from which filters do not read padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.checkpointed = self.reentrant = False

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = (
                checkpoint(layer, x, use_reentrant=self.reentrant)
                if self.checkpointed
                else layer(x)
            )
        return x


def filtered() -> tuple[Lengths, FilterHandle]:
    torch.manual_seed(0)
    model = Lengths()
    return model, insert_filters(model, "layers", kernel_size=3, num_filters=4, zero_init=False)


def test_a_stated_mask_is_that_of_every_filter() -> None:
    model, handle = filtered()
    x, lengths = torch.randn(2, TOKENS, 4), torch.tensor([TOKENS, 5])
    with pytest.raises(ValueError, match=r"lengths.*handle\.padding\(mask\)"):
        model(x, lengths)
    with handle.padding(PADDING):
        y = model(x, lengths)
        with handle.padding(None):
            torch.testing.assert_close(model(x, lengths), model(x))
        torch.testing.assert_close(model(x, lengths), y)  # the outer block goes on
    torch.testing.assert_close(y[0], model(x[:1])[0])
    torch.testing.assert_close(y[1, :5], model(x[1:, :5])[0])
    assert not torch.allclose(y, model(x))  # the block is over


def test_a_stated_mask_precedes_those_that_the_model_is_given() -> None:
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), 2, enable_nested_tensor=False
    )
    filter, x = FilterBank(4, 3), torch.randn(2, TOKENS, 4)
    ignoring = deepcopy(model)
    other = insert_filters(ignoring, "layers", filter, padding_mask=None)
    expected = ignoring(x, src_key_padding_mask=PADDING)
    handle = insert_filters(model, "layers", filter)
    with handle.padding(None):
        torch.testing.assert_close(model(x, src_key_padding_mask=PADDING), expected)
    with other.padding(PADDING):  # also where padding is ignored
        assert not torch.allclose(ignoring(x, src_key_padding_mask=PADDING), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_a_stated_mask(compiled: bool) -> None:
    model, handle = filtered()
    x = torch.randn(2, TOKENS, 4, requires_grad=True)
    run: Any = torch.compile(model, backend="aot_eager") if compiled else model
    with handle.padding(PADDING):
        out = run(x)
    alone = torch.cat([model(x[:1]).flatten(), model(x[1:, :5]).flatten()])
    parameters = [x, *handle.parameters()]
    one, other = (torch.autograd.grad(y.square().sum(), parameters) for y in (out[~PADDING], alone))
    torch.testing.assert_close(one, other)
    with handle.padding(~PADDING.flip(0)):
        assert not torch.allclose(run(x), out)


def test_checkpointed_layers_have_the_mask_of_their_pass() -> None:
    model, handle = filtered()
    x, y = torch.randn(2, 2, TOKENS, 4, requires_grad=True).unbind()
    gradients = []
    for model.checkpointed in (False, True):
        with handle.padding(PADDING):
            one = model(x)
        with handle.padding(PADDING.flip(0)):
            two = model(y)
        loss = (one + two + model(x + 0)).square().sum()
        gradients.append(torch.autograd.grad(loss, list(handle.parameters())))
    torch.testing.assert_close(*gradients)
    model.reentrant = True  # which copies the tokens
    with handle.padding(PADDING):
        out = model(x)
    with pytest.raises(ValueError, match=r"'layers\.1' is recomputed .*use_reentrant=False"):
        out.sum().backward()


@pytest.mark.parametrize("compiled", [False, True])
def test_disabled_filters_leave_the_original_model(compiled: bool) -> None:
    model, handle = filtered()
    original, x = Lengths(), torch.randn(2, TOKENS, 4)
    original.load_state_dict(model.state_dict(), strict=False)
    run: Any = torch.compile(model, backend="aot_eager") if compiled else model
    filtered_output = run(x)
    with handle.disabled():
        torch.testing.assert_close(run(x), original(x))
        with handle.padding(PADDING):
            torch.testing.assert_close(run(x), original(x))
    torch.testing.assert_close(run(x), filtered_output)
    model.checkpointed = original.checkpointed = True
    y = x.clone().requires_grad_()
    with handle.disabled():
        loss = model(y).square().sum()
    (found,) = torch.autograd.grad(loss, y)
    torch.testing.assert_close(found, torch.autograd.grad(original(y).square().sum(), y)[0])


def test_blocks_are_those_of_their_thread_and_of_no_copy() -> None:
    model, handle = filtered()
    x, other = torch.randn(2, TOKENS, 4), PADDING.flip(0)
    plain = model(x)
    expected = []
    for mask in (PADDING, other):
        with handle.padding(mask):
            expected.append(model(x))
            copy = deepcopy(model)
        assert torch.equal(copy(x), plain)  # the copy is not in the block
    both = threading.Barrier(2)

    def run(mask: Tensor) -> Tensor:
        with handle.padding(mask):
            both.wait()
            out: Tensor = model(x)
            both.wait()
            return out

    with ThreadPoolExecutor(2) as pool:
        for found, wanted in zip(pool.map(run, (PADDING, other)), expected, strict=True):
            assert torch.equal(found, wanted)


def test_a_mask_that_was_changed_in_place_is_refused_in_the_backward_pass() -> None:
    model, handle = filtered()
    model.checkpointed = True
    mask, x = PADDING.clone(), torch.randn(2, TOKENS, 4)
    with handle.padding(mask):
        loss = model(x).sum()
    mask.copy_(PADDING.flip(0))
    with pytest.raises(ValueError, match="Do not change a mask in place"):
        loss.backward()


def test_an_evaluation_with_a_mask_leaves_checkpointing_as_it_was() -> None:
    model, handle = filtered()
    x = torch.randn(2, TOKENS, 4)
    with torch.no_grad(), handle.padding(PADDING):
        model(x)
    model.checkpointed = model.reentrant = True
    model(x.requires_grad_()).sum().backward()
    model.reentrant = False
    with handle.padding(PADDING):
        loss = model(x).sum()
    with torch.no_grad():
        model(x)  # the same tensor, without a mask
    loss.backward()


def test_a_block_that_is_over_leaves_data_parallel_as_it_was() -> None:
    model, handle = filtered()
    x = torch.randn(2, TOKENS, 4)
    for layer in model.layers:
        layer._is_replica = True  # as in the copies of nn.DataParallel
    with handle.padding(PADDING), pytest.raises(RuntimeError, match="do not reach the replicas"):
        model(x)
    model(x)


def test_nested_tensors_have_padding_of_their_own() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 1).requires_grad_(False).eval()
    handle = insert_filters(model, "layers", kernel_size=3, num_filters=4)
    handle.filters["layers.0"].requires_grad_(False)
    x = torch.randn(2, TOKENS, 4)
    with handle.padding(PADDING), pytest.raises(ValueError, match="enable_nested_tensor=False"):
        model(x, src_key_padding_mask=PADDING)


def test_what_cannot_be_stated_is_refused() -> None:
    model, handle = filtered()
    x = torch.randn(2, TOKENS, 4)
    for wrong in (PADDING.int(), PADDING[0], [True]):
        with pytest.raises(ValueError, match="takes a boolean mask"), handle.padding(wrong):  # type: ignore[arg-type]
            pass
    with handle.padding(PADDING[:, 1:]), pytest.raises(ValueError, match=r"'layers\.0' returned"):
        model(x)
    with handle.padding(PADDING), pytest.raises(ValueError, match="constant of the exported"):
        torch.export.export(model, (x,))
    pickle.loads(pickle.dumps(model))(x)
    handle.remove()
    with pytest.raises(ValueError, match="no filters"), handle.padding(PADDING):
        pass


def of_lengths(arguments: dict[str, Any]) -> Tensor | None:
    lengths = arguments.get("lengths")
    if lengths is None:
        return None
    return torch.arange(arguments["x"].shape[1]) >= lengths.unsqueeze(1)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_function_computes_the_mask(compiled: bool) -> None:
    torch.manual_seed(0)
    model, x, lengths = Lengths(), torch.randn(2, TOKENS, 4), torch.tensor([TOKENS, 5])
    insert_filters(
        model, "layers", kernel_size=3, num_filters=4, zero_init=False, padding_mask=of_lengths
    )
    run: Any = torch.compile(model, backend="aot_eager") if compiled else model
    for y in (run(x, lengths), run(x, lengths=lengths)):
        torch.testing.assert_close(y[0], model(x[:1])[0])
        torch.testing.assert_close(y[1, :5], model(x[1:, :5])[0])
    exported = torch.export.export(model, (x, lengths)).module()
    torch.testing.assert_close(exported(x, lengths.flip(0)), model(x, lengths.flip(0)))
    pickle.loads(pickle.dumps(model))(x, lengths)
    gradients = []
    for model.checkpointed in (False, True):
        model.zero_grad()
        torch.autograd.backward(model(x.clone(), lengths).square().sum())
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_a_function_is_checked_and_not_saved(tmp_path: Path) -> None:
    model, x = Lengths(), torch.randn(2, TOKENS, 4)
    for wrong in (PADDING.int(), PADDING[:1, 0], 3):
        handle = insert_filters(model, "layers", padding_mask=lambda _, mask=wrong: mask)
        with pytest.raises(ValueError, match=r"must return a boolean mask \(batch, tokens\)"):
            model(x)
        handle.remove()
    handle = insert_filters(model, "layers", padding_mask=lambda _: PADDING[:, 1:])
    with pytest.raises(ValueError, match="from the mask of the function that was given"):
        model(x)
    handle.remove()
    handle = insert_filters(model, "layers", zero_init=False, padding_mask=of_lengths)
    expected = model(x, lengths := torch.tensor([TOKENS, 5]))
    handle.save_pretrained(tmp_path)
    handle.remove()
    with pytest.raises(ValueError, match=r"with a function as padding_mask, .*padding_mask=FUNC"):
        load_filters(model, tmp_path)
    for wrong in ("lengths", PADDING):
        with pytest.raises(ValueError, match="takes a function as padding_mask; got a value of"):
            load_filters(model, tmp_path, padding_mask=wrong)  # type: ignore[arg-type]
    load_filters(model, tmp_path, padding_mask=of_lengths)
    torch.testing.assert_close(model(x, lengths), expected)
    find_filters(model).remove()
    insert_filters(model, "layers.0", zero_init=False, padding_mask=of_lengths)
    insert_filters(model, "layers.1", zero_init=False, padding_mask=None)
    both = find_filters(model)
    both.save_pretrained(tmp_path / "both")
    expected = model(x, lengths)
    both.remove()
    load_filters(model, tmp_path / "both", padding_mask=of_lengths)
    torch.testing.assert_close(model(x, lengths), expected)
    plain = insert_filters(Lengths(), "layers")
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="need no padding function"):
        load_filters(Lengths(), tmp_path / "plain", padding_mask=of_lengths)
