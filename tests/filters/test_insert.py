"""Filters inserted into models of other code."""

import copy
import pickle
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spaudio.filters import DepthwiseFilter, FilterBank, find_filters, insert_filters
from spaudio.filters.insertion.padding import read_padding_mask
from tests.filters.cases import open_gains, spread

Pair = namedtuple("Pair", ["hidden", "extra"])


class Layer(nn.Module):
    """A layer whose ``kind`` selects the structure of its output."""

    def __init__(self, kind: str = "tensor") -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.kind = kind

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> Any:
        y = x + self.linear(x)
        return {
            "tensor": y,
            "tuple": (y, "rest"),
            "list": [y, "rest"],
            "named": Pair(y, "rest"),
            "dict": {"hidden": y},
            "flat": y.sum(-1),
        }[self.kind]


class Stack(nn.Module):
    """A stack of layers."""

    def __init__(self, kind: str = "tensor") -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer(kind) for _ in range(3))})

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.embed(x)
        for layer in self.encoder.layers:
            out = layer(x, key_padding_mask=mask)
            x = out[0] if isinstance(out, tuple | list) else out
        return x


def stack(kind: str = "tensor") -> Stack:
    torch.manual_seed(0)
    return Stack(kind).eval()


def tokens() -> Tensor:
    return torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("filter", "kind"),
    spread(
        ["bank", "multiscale", "adaptive", "fir", "depthwise", "none"],
        ["tensor", "tuple", "list", "named"],
    ),
)
def test_output_is_bit_identical_until_trained_and_after_removal(filter: str, kind: str) -> None:
    model, x = stack(kind), tokens()
    before, keys = model(x), list(model.state_dict())
    handle = insert_filters(model, "encoder.layers", filter, dim=8)
    assert len(handle) == 3
    assert torch.equal(model(x), before)
    open_gains(model)
    assert torch.equal(model(x), before) == (filter == "none")
    layer = model.encoder.layers[0]
    filtered, plain = layer(x), Layer.forward(layer, x)
    assert type(filtered) is type(plain)
    if kind != "tensor":
        assert filtered[1] == "rest"
        filtered, plain = filtered[0], plain[0]
    assert torch.equal(filtered, handle.filters["encoder.layers.0"](plain))
    handle.remove()
    assert torch.equal(model(x), before)
    assert list(model.state_dict()) == keys
    assert type(model.encoder.layers[0]) is Layer
    handle.remove()
    assert len(handle) == 0
    assert list(handle.parameters()) == []


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("encoder.layers", ["encoder.layers.0", "encoder.layers.1", "encoder.layers.2"]),
        ("encoder.layers.1", ["encoder.layers.1"]),
        ("encoder.layers.[02]", ["encoder.layers.0", "encoder.layers.2"]),
        ("*.layers.*", ["encoder.layers.0", "encoder.layers.1", "encoder.layers.2"]),
        ("*.*.*.linear", [f"encoder.layers.{i}.linear" for i in range(3)]),
        (["embed", "encoder.layers.2"], ["embed", "encoder.layers.2"]),
        (["encoder.layers.2", "encoder.layers.*"], [f"encoder.layers.{i}" for i in (2, 0, 1)]),
    ],
    ids=str,
)
def test_layers_by_name_and_glob(layers: str | list[str], names: list[str]) -> None:
    assert list(insert_filters(stack(), layers).filters) == names


def test_layers_by_module_at_the_end_of_a_sequential_and_with_two_names() -> None:
    model = stack()
    assert list(insert_filters(model, [model.encoder.layers[2], model.embed]).filters) == [
        "encoder.layers.2",
        "embed",
    ]
    sequential = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.GELU()))
    assert list(insert_filters(sequential, "").filters) == ["1.1"]
    blocks = nn.ModuleDict({"blocks": nn.Sequential(Layer(), Layer(), Layer())})  # as in timm
    assert list(insert_filters(blocks, "blocks").filters) == ["blocks.0", "blocks.1", "blocks.2"]
    part = stack()
    assert len(insert_filters(part, part.encoder.layers[1:])) == 2
    # A glob does not mean the model itself.
    assert list(insert_filters(nn.ModuleDict({"a": nn.Linear(8, 8)}), "*").filters) == ["a"]
    layer = Layer()
    named = nn.ModuleDict({"a": nn.ModuleList([layer]), "b": nn.ModuleList([layer])})
    assert len(insert_filters(named, ["a", "b"])) == 1
    end = nn.GELU()
    shared = nn.Sequential(nn.Sequential(nn.Linear(8, 8), end), nn.Sequential(nn.ReLU(), end))
    with pytest.raises(ValueError, match=r"'0\.1' and '1\.1' are one module"):
        insert_filters(shared, ["0", "1"])
    twice = nn.Sequential(nn.Linear(8, 8), end, nn.Linear(8, 8), end)
    with pytest.raises(ValueError, match=r"'1' and '3' are one module"):
        insert_filters(twice, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "encoder.layer"}, "no layer matches 'encoder.layer'; .*'encoder.layers'"),
        ({"layers": "decoder.*"}, r"no layer matches 'decoder.\*'"),
        ({"layers": ["embed", "embad"]}, "no layer matches 'embad'.*'embed'"),
        ({"layers": Layer()}, "Layer given as a layer is not part of the model"),
        ({"layers": []}, r"no layer in \[\]"),
        ({"layers": [0]}, "layers must be names or modules of the model; got 0"),
        ({"layers": 0}, "layers must be names or modules of the model; got 0"),
        ({"layers": "embed", "filter": FilterBank}, "filter must be a name.*got <class"),
        ({"layers": "embed", "filter": "bonk"}, "unknown filter 'bonk'.*'bank'"),
        ({"layers": "embed", "kernel": 3}, "no option 'kernel'"),
        ({"layers": "embed", "filter": "haar", "dim": 8}, "'haar' has no gains.*zero_init=False"),
        ({"layers": "embed", "filter": FilterBank(), "causal": True}, "a filter was given.*causal"),
        ({"layers": "embed", "padding_mask": "musk"}, "'embed' .*argument 'musk'.*'mask'"),
        ({"layers": "embed", "channels_first": "false"}, "channels_first must be True or False"),
        ({"layers": "embed", "batch_first": 1}, "batch_first must be True or False; got 1"),
        ({"layers": "embed", "padding_mask": torch.ones(2, 3)}, "name of an argument.*a Tensor"),
        ({"layers": "embed", "name": "fir"}, r"name='fir'.*insert_filters\(model, layers, 'fir'\)"),
    ],
)
def test_bad_arguments_are_named_and_leave_the_model_alone(
    arguments: dict[str, Any], message: str
) -> None:
    model = stack()
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        insert_filters(model, **arguments)
    assert list(model.state_dict()) == keys
    assert len(find_filters(model)) == 0


def test_unfit_layers_are_named() -> None:
    model = stack()
    handle = insert_filters(model, "encoder.layers.0")
    with pytest.raises(ValueError, match=r"'encoder.layers.0' has a filter already"):
        insert_filters(model, "encoder.layers")
    assert len(find_filters(model)) == 1
    handle = insert_filters(model, ["encoder.layers.1", "encoder.layers.2"])
    layer = model.encoder.layers[2]
    layer.__class__ = type("Other", (type(layer),), {})
    with pytest.raises(ValueError, match="class was changed to Other after its filter"):
        handle.remove()
    assert len(handle) == 2  # all or nothing

    class Backwards(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self[0](self[1](x))
            return out

    own = nn.ModuleDict({"a": Backwards(nn.Linear(8, 8), nn.Linear(8, 8))})
    with pytest.raises(ValueError, match="'a' is a Backwards; name a layer inside"):
        insert_filters(own, "a")
    lazy = nn.Sequential(nn.LazyLinear(8))
    with pytest.raises(ValueError, match=r"'0' is a LazyLinear.*call the model once"):
        insert_filters(lazy, "0")
    lazy(tokens())
    assert len(insert_filters(lazy, "0")) == 1
    model.embed.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"forward of 'embed' was replaced.*filters first$"):
        insert_filters(model, "embed")
    model.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"forward of '' was replaced.*inside it, such as 'embed'"):
        insert_filters(model, "")
    for kind, error, message in (
        ("dict", TypeError, r"layer 'encoder\.layers\.0' returned a dict\. Name a layer inside"),
        ("flat", ValueError, r"three axes.*'encoder\.layers\.0' returned shape \(2, 12\)"),
    ):
        model = stack(kind)
        insert_filters(model, "encoder.layers.0")
        with pytest.raises(error, match=message):
            model(tokens())


def test_filters_follow_the_layer_or_are_copied() -> None:
    model = stack().to("meta", torch.bfloat16).train().requires_grad_(False)
    handle = insert_filters(model, "encoder.layers")
    assert {p for p in model.parameters() if p.requires_grad} == set(handle.parameters())
    assert all(filter.training for filter in handle.filters.values())
    assert not any(f.training for f in insert_filters(stack(), "encoder.layers").filters.values())
    double = insert_filters(stack(), "encoder.layers", dtype=torch.float64)
    assert {p.dtype for p in double.parameters()} == {torch.float64}
    kinds = {(p.device.type, p.dtype) for p in handle.parameters()}
    assert kinds == {("meta", torch.bfloat16)}
    given = FilterBank(5, 3)
    copies = list(insert_filters(stack(), "encoder.layers", given).filters.values())
    assert all(torch.equal(c.state_dict()["gains"], given.gains) for c in copies)
    assert len({id(c) for c in copies} | {id(given)}) == 4
    double = nn.Sequential(nn.Linear(8, 8)).double()
    insert_filters(double, "0", DepthwiseFilter(8))
    assert double(tokens().double()).dtype == torch.float64


def test_tied_parameters_are_given_once() -> None:
    handle = insert_filters(stack(), "encoder.layers")
    first, *others = handle.filters.values()
    for filter in others:
        filter.kernels = first.kernels
    assert len(list(handle.parameters())) == 1 + 3  # one of kernels, three of gains


def test_weights_of_eight_bits_do_not_choose_the_type() -> None:
    eight, norm = nn.Linear(8, 8).to(torch.float8_e4m3fn), nn.LayerNorm(8).bfloat16()
    for model, dtype in (
        (nn.Sequential(eight, norm), torch.bfloat16),
        (nn.Sequential(eight), torch.float32),
    ):
        handle = insert_filters(model, "0")
        assert {p.dtype for p in handle.parameters()} == {dtype}
        handle.remove()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_state_dicts_carry_the_filters(how: Callable[[Stack], Stack]) -> None:
    model, x = stack(), tokens()
    plain = model(x)
    insert_filters(model, "encoder.layers")
    open_gains(model)
    filtered, twin = model(x), how(model)
    assert torch.equal(twin(x), filtered)
    assert isinstance(twin.encoder.layers[0], Layer)
    assert type(twin.encoder.layers[0]).__name__ == "Layer"  # by which accelerate and FSDP find it
    # Names of the model's own weights stay, so a checkpoint from before still fits.
    missing, unexpected = twin.load_state_dict(stack().state_dict(), strict=False)
    assert unexpected == []
    assert all("token_filter" in key for key in missing)
    find_filters(twin).remove()
    assert torch.equal(twin(x), plain)
    assert torch.equal(model(x), filtered)
    insert_filters(twin, "encoder.layers")
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), filtered)


class Outside(nn.Sequential):
    """Its layers do not get the mask."""

    def forward(self, input: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        x: Tensor = super().forward(input)
        return x


@pytest.mark.parametrize(
    "how", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_handle_of_a_part_removes_the_hooks_around_it(how: Callable[[Any], Any]) -> None:
    made, x = Outside(nn.Sequential(nn.Linear(8, 8)), nn.Linear(8, 8)), tokens()
    insert_filters(made, ["0.0", "1"], zero_init=False)
    model, mask = how(made), torch.arange(12) >= torch.tensor([[12], [5]])
    model.register_forward_hook(lambda *call: None)  # not of a filter
    find_filters(model[0]).remove()
    # The other filter still sees the mask.
    torch.testing.assert_close(model(x, mask)[1:, :5], model(x[1:, :5]))
    find_filters(model[1]).remove()
    assert not model._forward_pre_hooks
    assert not model._forward_pre_hooks_with_kwargs
    assert not model._forward_hooks_always_called
    assert len(model._forward_hooks) == 1


def test_hooks_of_a_loaded_model_are_not_replaced_by_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch counts the hooks of a process from 0."""
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    model, x, mask = Outside(nn.Linear(8, 8), nn.Linear(8, 8)), tokens(), torch.zeros(2, 12) > 0
    mask[1, 5:] = True
    insert_filters(model, "0", kernel_size=5)
    open_gains(model)
    expected = model(x, mask)
    torch.save(model, tmp_path / "model.pt")
    monkeypatch.setattr(RemovableHandle, "next_id", 0)  # as in another process
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    insert_filters(loaded, "1")
    assert torch.equal(loaded(x, mask), expected)


def test_a_filter_of_a_compiled_layer_is_found_once() -> None:
    model, x = stack(), tokens()
    plain, inserted = model(x), insert_filters(model, "encoder.layers", num_filters=3)
    open_gains(model)
    layers = model.encoder.layers
    for i, layer in enumerate(layers):
        layers[i] = torch.compile(layer, backend="eager")
    found = find_filters(model)
    assert len(found) == 3
    assert list(found.parameters()) == list(inserted.parameters())
    assert not torch.equal(model(x), plain)
    found.remove()
    torch.testing.assert_close(model(x), plain)
    assert len(find_filters(model)) == 0


def test_export_of_any_length() -> None:
    model, x = stack("tuple"), tokens()
    insert_filters(model, "encoder.layers.0", "adaptive", dim=8, causal=True)
    insert_filters(model, "encoder.layers.1", "multiscale")
    open_gains(model)
    tokens_axis = torch.export.Dim("tokens", min=2, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {1: tokens_axis}})
    # Any runtime can run it: no operator of this package.
    assert not any("spaudio" in str(node.target) for node in program.graph.nodes)
    for length in (7, 40):
        other = torch.randn(2, length, 8)
        torch.testing.assert_close(program.module()(other), model(other))


def test_compiles_as_one_graph_of_any_length() -> None:
    model = stack("tuple")
    insert_filters(model, "encoder.layers", num_filters=8, kernel_size=4)
    open_gains(model)
    # The graph and its gradients are tested; a backend that generates code takes much longer.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (9, 14):
        x = torch.randn(2, length, 8)
        gradients = []
        for run in (compiled, model):
            model.zero_grad()
            run(x).square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    ("layout", "axes"),
    [({}, (0, 1, 2)), ({"batch_first": False}, (1, 0, 2)), ({"channels_first": True}, (0, 2, 1))],
)
def test_layouts(layout: dict[str, Any], axes: tuple[int, ...]) -> None:
    x, model = tokens(), nn.Identity()
    handle = insert_filters(model, "", zero_init=False, **layout)
    torch.testing.assert_close(model(x.permute(axes)).permute(axes), handle.filters[""](x))


def test_a_layer_that_is_not_batch_first_is_refused() -> None:
    attention, layer = nn.MultiheadAttention(8, 2), nn.TransformerEncoderLayer(8, 2, 16)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 1)
    for module in (attention, layer, decoder, nn.LSTM(8, 8)):
        with pytest.raises(ValueError, match=r"has batch_first=False.*\(batch_first=False\)"):
            insert_filters(module, "")
        insert_filters(module, "", batch_first=False).remove()
    with pytest.raises(ValueError, match=r"'0' has batch_first=True"):
        insert_filters(nn.Sequential(nn.GRU(8, 8, batch_first=True)), "0", batch_first=False)
    # What a layer does with the tokens inside is its own affair.
    holder = Layer()
    holder.attention = nn.MultiheadAttention(8, 2)
    insert_filters(holder, "")


def test_a_layer_that_returns_channels_first_is_refused() -> None:
    for kind in (nn.Conv1d(8, 8, 1), nn.ConvTranspose1d(8, 8, 1), nn.BatchNorm1d(8),
                 nn.InstanceNorm1d(8), nn.MaxPool1d(1), nn.AvgPool1d(1)):  # fmt: skip
        model = nn.Sequential(kind)
        with pytest.raises(ValueError, match=r"'0' is a .*1d.*\(channels_first=True\)"):
            insert_filters(model, "0")
        insert_filters(model, "0", channels_first=True)

    class TokensFirst(nn.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)

    model = nn.Sequential(TokensFirst(8, 8, 1))
    insert_filters(model, "0")
    assert model(tokens()).shape == (2, 12, 8)
    for other in (nn.GroupNorm(2, 8), nn.SyncBatchNorm(8), nn.AdaptiveAvgPool1d(5)):
        with pytest.raises(ValueError, match=type(other).__name__):
            insert_filters(nn.Sequential(other), "0")
    # An activation returns the layout that it is given.
    stem = nn.Sequential(nn.Conv1d(8, 8, 1), nn.GELU(), nn.Dropout(0.1))
    with pytest.raises(ValueError, match=r"'2' is a Dropout after a Conv1d.*channels_first=True"):
        insert_filters(stem, "")
    insert_filters(stem, "", channels_first=True)
    insert_filters(nn.Sequential(nn.Linear(8, 8), nn.GELU()), "")


@pytest.mark.parametrize("positional", [True, False])
def test_padding_mask_reaches_the_filter(positional: bool) -> None:
    layer, x = Layer(), tokens()
    mask = torch.arange(12) >= torch.tensor([[12], [5]])
    plain = layer(x)
    handle = insert_filters(layer, "", zero_init=False)
    y = layer(x, mask) if positional else layer(x, key_padding_mask=mask)
    torch.testing.assert_close(y, handle.filters[""](plain, mask))
    assert not torch.allclose(layer(x), y)
    handle.remove()
    insert_filters(layer, "", handle_filter := FilterBank(), padding_mask=None)
    torch.testing.assert_close(layer(x, mask), handle_filter(plain))


def test_the_mask_of_the_keys_is_not_that_of_other_queries() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    (filter,) = insert_filters(attention, "", padding_mask="auto").filters.values()
    query, memory = torch.randn(2, 2, 6, 8)
    mask = torch.arange(6) >= torch.tensor([[6], [4]])
    seen: list[Any] = []
    filter.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    attention(query, query, query, key_padding_mask=mask)
    attention(query, key=memory, value=memory, key_padding_mask=mask)
    assert torch.equal(seen[0], mask)
    assert seen[1] is None


def test_views_of_a_layer_s_output_are_still_possible() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).view(len(x), -1)

    model, x = Model(), torch.randn(2, 3, 5)
    shape = model(x).shape
    insert_filters(model, "conv", channels_first=True)
    assert model(x).shape == shape


def test_padding_masks_of_all_conventions_are_read() -> None:
    padding = torch.tensor([[False, False, True], [False, True, True]])
    additive = torch.zeros(2, 3).masked_fill(padding, -torch.inf)
    causal = torch.ones(3, 3, dtype=torch.bool).tril()
    masks = [
        ("key_padding_mask", padding),
        ("src_key_padding_mask", additive),
        ("padding_mask", padding[:, None, None]),
        ("mask", padding[:, None, None].long().expand(2, 4, 3, 3)),
        ("mask", additive[:, None, None]),
        ("attention_mask", ~padding),
        ("attention_mask", (~padding)[:, None, None]),
        ("attention_mask", (~padding).long()),
        *(
            ("attention_mask", (-1e4 * padding[:, None, None].float()).to(dtype))
            for dtype in (torch.float32, torch.bfloat16, torch.float16)
        ),
        ("attention_mask", additive[:, None, None].expand(2, 4, 3, 3)),
    ]
    for name, mask in masks:
        read = read_padding_mask(name, mask, 2, 3)
        assert read is not None
        assert torch.equal(read, padding)
    for name, mask in (
        ("attention_mask", (~padding)[:, None, None] & causal),
        ("attention_mask", additive),
        ("attention_mask", torch.zeros(2, 3, 3)),
        ("attention_mask", torch.ones(2, 4)),
        ("attention_mask", torch.ones(4, 3)),
    ):
        assert read_padding_mask(name, mask, 2, 3) is None
    ones = (~padding)[:, None, None].float()
    for name, mask in (
        ("key_padding_mask", padding.float()),
        ("attention_mask", ones),
        ("attention_mask", (ones - 1) * 1000),
    ):
        with pytest.raises(ValueError, match=rf"^{name} is torch\.float32.*a boolean one"):
            read_padding_mask(name, mask, 2, 3)
    one = read_padding_mask("attention_mask", torch.ones(1, 1, dtype=torch.long), 1, 1)
    assert one is not None
    assert not one.any()
    # A bias by distance, which a model may add to the mask of one query.
    read = read_padding_mask("attention_mask", torch.tensor([[[[-2.0, -1, 0]]]]), 1, 1, past=2)
    assert read is not None
    assert not read.any()
    # A row of a mask of queries and keys, which may be True where nothing is attended to.
    row = torch.zeros(1, 1, 1, 3, dtype=torch.bool)
    assert read_padding_mask("attention_mask", row, 1, 1, past=2) is None
    read = read_padding_mask("attention_mask", ~row, 1, 1, past=2)
    assert read is not None
    assert not read.any()


def test_a_removed_handle_saves_nothing_and_removes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    model = stack()
    old = insert_filters(model, "encoder.layers")
    old.remove()
    with pytest.raises(ValueError, match=r"encoder\.layers\.0.*were removed.*find_filters"):
        old.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no filters to save; insert some"):
        find_filters(model).save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    newer = insert_filters(model, "encoder.layers.1")
    old.remove()
    assert len(old) == 0
    assert list(find_filters(model).filters) == ["encoder.layers.1"]
    both = find_filters(model)
    newer.remove()
    insert_filters(model, "encoder.layers.1").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="were removed"):
        both.save_pretrained(tmp_path)


def test_dim_is_taken_from_the_layer() -> None:
    def dims(model: nn.Module, layers: str, **options: Any) -> list[int | None]:
        options = {"filter": "depthwise"} | options
        filters = insert_filters(model, layers, **options).filters.values()
        return [filter.config()["dim"] for filter in filters]

    transformer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    assert dims(transformer, "layers") == [8, 8]
    assert dims(stack(), "*.*.*.linear") == [8, 8, 8]
    assert dims(nn.Sequential(nn.Embedding(5, 12)), "0", filter="adaptive") == [12]
    assert dims(nn.Sequential(nn.Linear(3, 6)), "0", filter="bank", gains="per_dim") == [6]
    assert dims(nn.Sequential(nn.RMSNorm(7)), "0", filter="haar", zero_init=False) == [7]

    class OwnRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(7))

    assert dims(nn.ModuleList([OwnRMSNorm()]), "0") == [7]
    norm = nn.LayerNorm(7)
    norm.normalized_shape = 7  # type: ignore[assignment]  # as of the norms of I-BERT
    assert dims(nn.ModuleList([norm]), "0") == [7]
    convolution = nn.Sequential(nn.Conv1d(3, 5, 1))
    assert dims(convolution, "0", channels_first=True) == [5]
    assert convolution(torch.randn(2, 3, 9)).shape == (2, 5, 9)
    model = stack()
    model.config = SimpleNamespace(hidden_size=8)  # type: ignore[assignment]
    assert dims(model, "encoder.layers.0") == [8]
    with pytest.raises(ValueError, match=r"insert_filters\(model, '0', 'depthwise', dim=\.\.\.\)"):
        insert_filters(nn.Sequential(nn.Identity()), "0", "depthwise")
    # A norm of heads, or of the input, has another width than what the layer returns.
    model.encoder.layers[2].norm = nn.LayerNorm(4)
    with pytest.raises(ValueError, match=r"'encoder\.layers\.2', 'depthwise', dim=\.\.\.\)"):
        dims(model, "encoder.layers.2")
    model.encoder.config = SimpleNamespace(hidden_size=4)  # nearer to the layer
    assert dims(model, "encoder.layers.1") == [4]
    with pytest.raises(ValueError, match=r"for dim=4; .*\(2, 12, 8\).*pass dim=8"):
        model(tokens())
    given = insert_filters(nn.Sequential(nn.Linear(3, 6)), "0", "depthwise", dim=4).filters["0"]
    assert isinstance(given, DepthwiseFilter)
    assert given.dim == 4


class Compiled(Layer):
    @torch.compile(backend="eager")
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x + self.linear(x).relu()


def test_a_layer_whose_forward_is_compiled() -> None:
    model, x = nn.Sequential(Compiled(), nn.Linear(8, 8)), torch.randn(2, 9, 8)
    plain = model(x)
    insert_filters(model, ["0"], "depthwise", zero_init=False, dim=8)
    y = model(x)
    assert not torch.allclose(y, plain)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), y)
    exported = torch.export.export(model, (x,), strict=True).module()
    torch.testing.assert_close(exported(x), y)


REGISTRY: dict[str, type[nn.Module]] = {}


class Registered(nn.Linear):
    final = False

    def __init_subclass__(cls, **options: Any) -> None:
        if cls.__mro__[1].__dict__.get("final"):
            raise TypeError("no subclasses")
        super().__init_subclass__(**options)
        REGISTRY[cls.__name__] = cls


class Block(Registered):
    pass


class Last(Registered):
    final = True


def test_classes_that_register_or_refuse_their_subclasses() -> None:
    model, x = nn.Sequential(Block(8, 8), Last(8, 8)), torch.randn(2, 9, 8)
    plain = model(x)
    with pytest.raises(TypeError, match="no subclasses"):
        insert_filters(model, ["1"], zero_init=False)
    assert not find_filters(model).filters
    assert list(model[1].state_dict()) == ["weight", "bias"]
    handle = insert_filters(model, ["0"], zero_init=False)
    assert not torch.allclose(model(x), plain)
    again = REGISTRY["Block"](8, 8)  # of the filtering class, which has taken the name
    again.load_state_dict({"weight": model[0].weight, "bias": model[0].bias})
    torch.testing.assert_close(again(x), nn.functional.linear(x, again.weight, again.bias))
    other = insert_filters(nn.Sequential(again), ["0"], zero_init=False)
    assert len(other.filters) == 1
    handle.remove()
    assert torch.equal(model(x), plain)


def test_the_mask_of_a_model_on_several_devices() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8, device="meta")])

        def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x.to(layer.weight.device))  # type: ignore[arg-type]
            return x

    model = Split()
    insert_filters(model, "layers")
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 5:] = True
    assert model(torch.randn(2, 9, 8), mask).is_meta


def test_a_model_that_is_wrapped_already_is_refused() -> None:
    class FSDPModule(nn.Module):  # what fully_shard adds to the classes of a module
        pass

    class Sharded(FSDPModule, Stack):
        pass

    with pytest.raises(ValueError, match=r"holds a FSDPModule.*before wrapping"):
        insert_filters(Sharded(), "encoder.layers")


def test_the_ids_of_a_model_show_that_its_layers_are_not_batch_first() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layer = nn.Embedding(5, 8), nn.Linear(8, 8)

        def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Tensor:
            out: Tensor = self.layer(self.embed(input_ids).transpose(0, 1))
            return out.transpose(0, 1)

    ids = torch.zeros(2, 6, dtype=torch.long)
    model = Model()
    handle = insert_filters(model, "layer")
    with pytest.raises(ValueError, match=r"2 items of 6 tokens; pass .*batch_first=False"):
        model(ids)
    handle.remove()
    insert_filters(model, "layer", batch_first=False)
    assert model(ids).shape == (2, 6, 8)


def test_a_graph_is_refused() -> None:
    model = nn.Sequential(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 8))))
    with pytest.raises(ValueError, match="'0' is a Sequential; name a layer inside it"):
        insert_filters(model, ["0"])


def test_an_insertion_that_fails_leaves_the_model_unchanged() -> None:
    class Final(nn.Linear):
        def __init_subclass__(cls) -> None:
            raise TypeError("no subclasses")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), Final(4, 4)])

        def forward(self, x: Tensor, padding_mask: Any = None) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    model = Model()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(TypeError, match="no subclasses"):
        insert_filters(model, "layers", kernel_size=3)
    assert [name for name, _ in model.named_modules()] == names
    assert type(model.layers[0]) is nn.Linear
    assert not model._forward_pre_hooks


def test_a_glob_does_not_match_filters_that_were_inserted() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4))
    first = insert_filters(model, "0.0", kernel_size=3)
    second = insert_filters(model, ["*", "0.1"], kernel_size=3)
    assert list(first.filters) == ["0.0"]
    assert list(second.filters) == ["0.1", "1"]
    with pytest.raises(ValueError, match="token_filter"):
        insert_filters(model, "0.0.token_filter", kernel_size=3)
    own = nn.ModuleDict({"token_filter": nn.Sequential(nn.Linear(4, 4))})  # a layer of the user's
    assert list(insert_filters(own, "token_filter.0", kernel_size=3).filters) == ["token_filter.0"]
