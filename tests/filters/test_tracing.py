"""Tracers and exporters record models with filters, or say what does instead."""

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spaudio.filters import insert_filters, make_filter
from tests.filters.cases import CASES, DIM, build, open_gains, spread
from tests.filters.hf_models import SMALL, text_model
from tests.filters.hf_models import build as build_model


class Wrapped(nn.Module):
    """A filter as part of a module."""

    def __init__(self, case: str, causal: bool) -> None:
        super().__init__()
        self.filter = build(case, causal=causal)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = self.filter(x, mask) * 2
        return y


def inputs(tokens: int = 9) -> tuple[Tensor, Tensor]:
    mask = torch.zeros(2, tokens, dtype=torch.bool)
    mask[1, tokens // 2 :] = True
    return torch.randn(2, tokens, DIM), mask


@pytest.mark.parametrize(("case", "causal"), spread(CASES, [True, False]))
@torch.no_grad()
def test_trace_export_and_fx_of_every_filter(case: str, causal: bool) -> None:
    model = Wrapped(case, causal)
    example, other = inputs(), inputs(tokens=13)
    # Its own check of the trace would do what is done below.
    traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
    anywhere = {1: torch.export.Dim.AUTO}
    exported = torch.export.export(model, example, dynamic_shapes=(anywhere, anywhere))
    symbolic = torch.fx.symbolic_trace(model)
    for recorded in (traced, exported.module(), symbolic):
        torch.testing.assert_close(recorded(*other), model(*other))
    # Other programs that run them have no operator of this package.
    operators = {node.kind() for node in traced.inlined_graph.nodes()}
    operators |= {str(node.target) for node in exported.graph.nodes}
    assert any(name.startswith("aten") for name in operators)
    assert not {name for name in operators if name.startswith("spaudio")}


def test_script_names_what_works() -> None:
    for model in (make_filter("bank"), Wrapped("bank-even", False)):
        with pytest.raises(TypeError, match=r"torch\.jit\.script.*'bank'.*torch\.jit\.trace"):
            torch.jit.script(model)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    insert_filters(encoder, "")
    with pytest.raises(TypeError, match=r"torch\.jit\.script.*torch\.export"):
        torch.jit.script(encoder)


def test_fx_of_inserted_filters() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            y: Tensor = self.second(self.first(x))
            return y

    model = Stack()
    insert_filters(model, ["first", "second"], padding_mask=None)
    open_gains(model)
    x = torch.randn(2, 9, 6)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))
    with pytest.raises(TypeError, match=r"torch\.fx cannot trace.*torch\.export"):
        torch.fx.symbolic_trace(model.first)
    model = Stack()
    insert_filters(model, "first")
    with pytest.raises(TypeError, match=r"torch\.fx.*padding.*padding_mask=None"):
        torch.fx.symbolic_trace(model)


class Logits(nn.Module):
    """A model of transformers with tensors in and out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        out: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return out


def filtered_bert() -> Logits:
    bert, layers = text_model("bert", "sdpa")
    insert_filters(bert, layers, kernel_size=4, num_filters=4)
    open_gains(bert)
    return Logits(bert)


def text(seed: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(3, 40, (2, 9), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[seed, 5:] = 0
    return ids, mask


def filtered_ast() -> nn.Module:
    settings = SMALL | {"max_length": 32, "num_mel_bins": 16, "patch_size": 8}
    model = build_model("ASTModel", "ASTConfig", settings)
    name = next(n for n, m in model.named_modules() if isinstance(m, nn.ModuleList))
    insert_filters(model, name, "multiscale", scales=[(3, 2), (3, 4)])
    open_gains(model)
    model.config.return_dict = False
    return model  # type: ignore[no-any-return]


def sound(seed: int) -> tuple[Tensor]:
    return (torch.randn(2, 32, 16, generator=torch.Generator().manual_seed(seed)),)


@pytest.mark.parametrize(
    ("make", "inputs", "dynamo"),
    # The legacy exporter of this torch alters transformers' masks, also without filters.
    [(filtered_bert, text, True), (filtered_ast, sound, True), (filtered_ast, sound, False)],
)
@torch.no_grad()
def test_onnx_of_another_library_equals_eager(
    make: Any, inputs: Any, dynamo: bool, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, path = make(), str(tmp_path / "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs(0), path, dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = inputs(1)
    names = [each.name for each in session.get_inputs()]
    y = session.run(None, {n: v.numpy() for n, v in zip(names, values, strict=True)})[0]
    out = model(*values)
    out = out if isinstance(out, Tensor) else out[0]
    torch.testing.assert_close(torch.from_numpy(y), out, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_traced_model_of_another_library_reads_the_padding() -> None:
    model = filtered_bert()
    traced = torch.jit.trace(  # type: ignore[no-untyped-call]
        model, text(0), check_trace=False
    )
    torch.testing.assert_close(traced(*text(1)), model(*text(1)))


@torch.no_grad()
def test_an_exported_model_takes_as_many_items_as_tokens() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, key_padding_mask: Tensor) -> Tensor:
            return x

    model = Masked()
    insert_filters(model, "", "depthwise", dim=8, zero_init=False)

    def given(batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        ends = torch.randint(1, tokens + 1, (batch, 1))
        return torch.randn(batch, tokens, 8), torch.arange(tokens) >= ends

    batch, tokens = torch.export.Dim("batch", max=64), torch.export.Dim("tokens", min=2, max=64)
    axes = {0: batch, 1: tokens}
    shapes = {"x": axes, "key_padding_mask": axes}
    program = torch.export.export(model, given(3, 9), dynamic_shapes=shapes).module()
    for sizes in ((5, 5), (2, 5)):
        x, mask = given(*sizes)
        assert torch.equal(program(x, mask), model(x, mask))


@torch.no_grad()
def test_a_traced_model_can_be_saved() -> None:
    model, x = Wrapped("bank-odd", True), inputs()
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), file)  # type: ignore[no-untyped-call]
    file.seek(0)
    loaded = torch.jit.load(file)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loaded(*x), model(*x))


def test_a_backend_that_is_named_stays_in_an_exported_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPAUDIO_FILTER_BACKEND", "gemm")
    program = torch.export.export(Wrapped("bank-odd", True), inputs())
    assert any("spaudio.filterbank" in str(node.target) for node in program.graph.nodes)
