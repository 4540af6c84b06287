"""``padding_mask="auto"``: an item alone equals the item padded in a batch, in many models."""

import gc
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spaudio.filters import find_filters, insert_filters
from spaudio.filters.insertion.calls import _IN_PROGRESS
from tests.filters.cases import open_gains
from tests.filters.hf_models import SMALL, TEXT, build, text_model

SHORT, LONG = 7, 12


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", TEXT)
@torch.no_grad()
def test_text_alone_equals_padded(name: str, side: str, attention: str) -> None:
    model, layers = text_model(name, attention)
    # A norm takes no mask: its filter reads that of the layer around it.
    norms = {"llama": "layers.*.input_layernorm", "bert": "encoder.layer.*.output.LayerNorm"}
    insert_filters(model, norms.get(name, layers), kernel_size=5, num_filters=4)
    open_gains(model)
    ids = torch.randint(3, 40, (1, SHORT))
    positions = torch.arange(SHORT).unsqueeze(0)
    alone = model(input_ids=ids)[0]
    masked = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    torch.testing.assert_close(masked, alone, rtol=1e-4, atol=1e-5)

    real = torch.zeros(LONG, dtype=torch.bool)
    real[-SHORT:] = True
    real = real if side == "left" else real.flip(0)
    batch = torch.randint(3, 40, (3, LONG))
    batch[1, real] = ids[0]
    mask = torch.ones_like(batch)
    mask[1] = real
    places = torch.arange(LONG).repeat(3, 1)
    places[1, real] = positions[0]
    places[1, ~real] = 0
    extra = {"position_ids": places} if side == "left" and name != "bert" else {}
    if side == "left" and name in ("bert", "modernbert"):
        extra = {"position_ids": places}
    padded = model(input_ids=batch, attention_mask=mask, **extra)[0][1, real]
    torch.testing.assert_close(padded, alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_wav2vec2_alone_equals_padded(attention: str) -> None:
    settings = SMALL | {
        "conv_dim": (16, 16),
        "conv_stride": (5, 4),
        "conv_kernel": (10, 4),
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    }
    model = build("Wav2Vec2Model", "Wav2Vec2Config", settings, attention)
    insert_filters(model, "encoder.layers", kernel_size=5, num_filters=4)
    open_gains(model)
    sound = torch.randn(2, 400)
    mask = (torch.arange(400) < torch.tensor([[400], [250]])).long()
    padded = model(sound * mask, attention_mask=mask)[0][1]
    alone = model(sound[1:, :250])[0][0]
    torch.testing.assert_close(padded[: len(alone)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_whisper_and_ast_in_a_batch(attention: str) -> None:
    """Their items have one length; what Whisper ignores, its filters ignore."""
    whisper = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2,
               "encoder_ffn_dim": 32, "decoder_layers": 1, "decoder_attention_heads": 2,
               "max_source_positions": 25, "num_mel_bins": 20}  # fmt: skip
    model = build("WhisperModel", "WhisperConfig", whisper, attention).encoder
    insert_filters(model, "layers", kernel_size=5, num_filters=4)
    open_gains(model)
    x = torch.randn(2, 20, 50)
    mask = torch.ones(2, 50, dtype=torch.long)
    mask[1, 30:] = 0
    alone = model(x[1:])[0]
    torch.testing.assert_close(model(x)[0][1:], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(x, attention_mask=mask)[0][1:], alone, rtol=1e-4, atol=1e-5)
    ast = SMALL | {"max_length": 32, "num_mel_bins": 16, "patch_size": 8}
    model = build("ASTModel", "ASTConfig", ast, attention)
    name = next(n for n, m in model.named_modules() if isinstance(m, nn.ModuleList))
    insert_filters(model, name, kernel_size=5, num_filters=4)
    open_gains(model)
    x = torch.randn(2, 32, 16)
    torch.testing.assert_close(model(x)[0][1:], model(x[1:])[0], rtol=1e-4, atol=1e-5)


class Layer(nn.Module):
    """A layer that takes a mask and uses none."""

    def forward(self, x: Tensor, attention_mask: Any = None) -> Tensor:
        return x


class Model(nn.Module):
    """Gives its layer another mask than its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer()
        self.inner: Any = None

    def forward(self, x: Tensor, pad: Tensor | None = None, attention_mask: Any = None) -> Tensor:
        out: Tensor = self.layer(x, attention_mask=self.inner)
        return out


def causal(tokens: int, window: int = 99) -> Tensor:
    distance = torch.arange(tokens).unsqueeze(1) - torch.arange(tokens)
    return (distance >= 0) & (distance < window)


def filtered_model(**options: Any) -> tuple[Model, Any]:
    torch.manual_seed(0)
    model = Model()
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False, **options)
    return model, handle.filters["layer"]


def test_a_mask_that_cannot_be_told_is_refused() -> None:
    model, filter = filtered_model()
    x = torch.randn(2, 9, 4)
    real = torch.arange(9) < torch.tensor([[9], [5]])
    mixed = real[:, None, None] & causal(9, 4)
    for mask in (mixed, torch.where(mixed, 0.0, -torch.inf), causal(9).expand(2, 9, 9).clone()):
        with pytest.raises(ValueError, match=r"'layer'.*attention_mask of shape.*padding_mask="):
            model.layer(x, mask)
    with pytest.raises(ValueError, match=r"attention_mask, which is a dict.*padding_mask="):
        model.layer(x, {"full_attention": mixed})
    # The model was called without a mask: it made that of the layer from nothing.
    model.inner = mixed
    assert torch.equal(model(x), filter(x))
    torch.testing.assert_close(model(x, attention_mask=real), filter(x, ~real))
    # Rows that are equal by construction show the padding.
    keys = real[:, None, None].expand(2, 1, 9, 9)
    assert torch.equal(model.layer(x, keys), filter(x, ~real))
    assert torch.equal(model.layer(x, real[:, None, None].float().log()), filter(x, ~real))


def test_a_square_attention_mask_is_no_padding_mask() -> None:
    model, filter = filtered_model()
    for mask in (causal(9), causal(9).long()):
        x = torch.randn(2, 9, 4)
        assert torch.equal(model.layer(x, mask), filter(x))
        square = torch.randn(9, 9, 4)
        with pytest.raises(ValueError, match=r"\(9, 9\).*\(batch, tokens\) or \(tokens, tokens\)"):
            model.layer(square, mask)
    named, filter = filtered_model(padding_mask="attention_mask")
    real = causal(9)
    assert torch.equal(named.layer(square, real), filter(square, ~real))


def test_a_batch_of_as_many_items_as_tokens_is_read_as_those_before() -> None:
    model, filter = filtered_model()
    x = torch.randn(3, 9, 4)
    real = torch.arange(9) < torch.tensor([[9], [5], [1]])
    assert torch.equal(model.layer(x, real), filter(x, ~real))
    x, real = x[:, :3], real[:, :3]
    assert torch.equal(model.layer(x, real), filter(x, ~real))


def test_a_mask_the_wrong_way_round_is_announced() -> None:
    model, _ = filtered_model(padding_mask="pad")
    real = torch.arange(9) < torch.tensor([[9], [5]])
    with pytest.warns(UserWarning, match="'layer' .* all tokens of an item are padding.*inverse"):
        model(torch.randn(2, 9, 4), pad=real)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, _ = filtered_model(padding_mask="pad")
        model(torch.randn(2, 9, 4), pad=~real)


def test_lengths_instead_of_a_mask_are_refused() -> None:
    class WithLengths(nn.Module):  # such as XLM
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, lengths: Any = None, attention_mask: Any = None) -> Tensor:
            out: Tensor = self.layer(x)
            return out

    model, x = WithLengths(), torch.randn(2, 9, 4)
    handle = insert_filters(model, "layer", kernel_size=3)
    model(x, lengths=torch.tensor([9, 9]))
    real = torch.arange(9) < torch.tensor([[9], [5]])
    model(x, lengths=torch.tensor([9, 5]), attention_mask=real)
    with pytest.raises(ValueError, match=r"'layer': the model was given lengths, .*padding_mask="):
        model(x, lengths=torch.tensor([9, 5]))
    handle.remove()

    class Speech(WithLengths):  # knows no mask at all
        def forward(self, x: Tensor, input_lengths: Any) -> Tensor:  # type: ignore[override]
            out: Tensor = self.layer(x)
            return out

    speech = Speech()
    insert_filters(speech, "layer", kernel_size=3)
    speech(x, torch.tensor([9, 9]))
    with pytest.raises(ValueError, match=r"given input_lengths, .*handle\.padding\(mask\)"):
        speech(x, torch.tensor([9, 5]))
    compiled = torch.compile(speech, backend="aot_eager")
    compiled(x, torch.tensor([9, 9]))
    with pytest.raises(RuntimeError, match="given input_lengths"):
        compiled(x, torch.tensor([9, 5]))
    for given in ([9, 5], (9, 5), torch.tensor([9, 5]).numpy(), torch.tensor([[9], [5]])):
        with pytest.raises(ValueError, match="given input_lengths"):
            speech(x, given)
    speech(x, [9, 9])
    # A trace has the values of its example; an exported program may be given any.
    torch.jit.trace(speech, (x, torch.tensor([9, 9])))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="given input_lengths"):
        torch.jit.trace(speech, (x, torch.tensor([9, 5])))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="given input_lengths"):
        torch.export.export(speech, (x, torch.tensor([9, 9])))
    with pytest.raises(TypeError, match="does not check the lengths that modules around layer 'la"):
        torch.fx.symbolic_trace(speech)
    torch.fx.symbolic_trace(nn.Sequential(model))  # whose argument is not given
    insert_filters(model, "layer", kernel_size=3, padding_mask=None)
    model(x, lengths=torch.tensor([9, 5]))
    torch.export.export(model, (x, torch.tensor([9, 5])))


@pytest.mark.parametrize("name", ["xs_lens", "seq_lengths", "feature_lengths", "x_len"])
def test_lengths_have_many_names(name: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def forward(self, x, {name}=None):\n    return self.layer(x)", space)
    model = type("Named", (nn.Module,), space)()
    model.layer = nn.Linear(4, 4)
    insert_filters(model, "layer", kernel_size=3)
    with pytest.raises(ValueError, match=f"given {name}, which"):
        model(torch.randn(2, 9, 4), torch.tensor([9, 5]))


def test_lengths_of_another_sequence_are_not_those_of_the_layer() -> None:
    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, src: Tensor, src_lengths: Tensor, tgt: Tensor) -> Tensor:
            out: Tensor = self.layer(tgt)
            return out

    model = Translator()
    insert_filters(model, "layer", kernel_size=3)
    model(torch.randn(2, 9, 4), torch.tensor([9, 5]), torch.randn(2, 7, 4))


def test_a_mask_by_another_name_is_announced() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, encoder_padding_mask: Any = None) -> Tensor:
            out: Tensor = self.layer(x)
            return out

    model, x, real = Other(), torch.randn(2, 9, 4), torch.arange(9) < torch.tensor([[9], [5]])
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    alone = model(x[1:, :5])
    with pytest.warns(UserWarning, match="does not read encoder_padding_mask"):
        model(x, ~real)
    handle.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filter = handle._found["layer"][1]
        insert_filters(model, "layer", filter, padding_mask="encoder_padding_mask")
        torch.testing.assert_close(model(x, ~real)[1:, :5], alone)


@pytest.mark.parametrize("kind", [torch.Tensor.bool, torch.Tensor.long, torch.Tensor.float])
def test_a_mask_of_queries_and_keys_that_fits_the_tokens_is_announced(kind: Any) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, attn_mask: Any = None, pad_mask: Any = None) -> Tensor:
            out: Tensor = self.layer(x)
            return out

    model, x = Own(), torch.randn(2, 9, 4)
    real = kind(torch.arange(9) < torch.tensor([[9], [5]]))
    insert_filters(model, "layer", kernel_size=3)
    model(x, torch.ones(9, 9, dtype=torch.bool).tril())
    with pytest.warns(UserWarning, match="does not read attn_mask"):
        model(x, real)
    for shaped in (real.unsqueeze(1), real.unsqueeze(2)):
        model = Own()
        handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
        with pytest.warns(UserWarning, match=r"pad_mask\b.* give insert_filters padding_mask=FUNC"):
            model(x, pad_mask=shaped)
        alone, filter = model(x[1:, :5]), handle.filters["layer"]
        handle.remove()
        insert_filters(
            model, "layer", filter, padding_mask=lambda given: given["pad_mask"].reshape(2, 9) == 0
        )
        torch.testing.assert_close(model(x, pad_mask=shaped)[1:, :5], alone)


def test_a_mask_of_a_layer_with_tokens_first_names_the_remedy() -> None:
    class TokensFirst(nn.Module):
        def forward(self, x: Tensor, key_padding_mask: Tensor) -> Tensor:
            return x

    layer = TokensFirst()
    insert_filters(layer, "", kernel_size=3)
    with pytest.raises(ValueError, match=r"fits a layer of the other layout: is .*batch_first"):
        layer(torch.randn(9, 2, 4), torch.zeros(2, 9, dtype=torch.bool))

    class Square(nn.Module):
        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            return x

    square = Square()
    insert_filters(square, "", kernel_size=3)
    with pytest.raises(ValueError, match="cannot tell the padding of layer ''") as caught:
        square(torch.randn(9, 9, 4), torch.ones(9, 9, dtype=torch.bool))
    assert "batch_first" not in str(caught.value)


def test_a_call_that_an_interrupt_ended_is_over_for_the_modules_in_it() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.Identity())

        def forward(self, x: Tensor, padding_mask: Any = None) -> Tensor:
            out: Tensor = self.inner(x)
            return out

    model, x = Outer(), torch.randn(2, 9, 4)
    insert_filters(model, "inner.0", kernel_size=3, zero_init=False)
    before = model.inner(x)

    def interrupt(*call: Any) -> None:
        raise KeyboardInterrupt

    class Held:
        pass

    hook = model.inner[1].register_forward_hook(interrupt)
    padding = torch.arange(9) >= torch.tensor([[9], [5]])

    def stopped() -> weakref.ref[Held]:
        held = Held()
        try:
            model(x, padding_mask=padding)
        except KeyboardInterrupt:
            return weakref.ref(held)
        raise AssertionError

    gone = stopped()
    gc.collect()
    assert gone() is None  # the variables of its callers are freed
    hook.remove()
    assert torch.equal(model.inner(x), before)


def test_a_compiled_call_that_an_interrupt_ended_is_not_read() -> None:
    class Stopped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.stopped = nn.Linear(4, 4), False

        def forward(self, x: Tensor, cu_seq_lens_q: Any = None) -> Any:
            torch._dynamo.graph_break()
            if self.stopped:
                raise KeyboardInterrupt
            return self.layer(x)

    torch._dynamo.reset()
    model, x = Stopped(), torch.randn(1, 9, 4)
    insert_filters(model, "layer", kernel_size=3, zero_init=False)
    expected = model(x)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    model.stopped = True
    with pytest.raises(KeyboardInterrupt):
        compiled(x, torch.tensor([0, 3, 9]))
    model.stopped = False
    for _ in range(2):
        assert torch.equal(compiled(x), expected)


def test_a_model_that_calls_itself_sees_the_mask_of_each_call() -> None:
    class Twice(nn.Module):  # as R-Drop does
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, key_padding_mask: Any = None, twice: bool = False) -> Any:
            again = self(x, key_padding_mask.flip(0)) if twice else None
            y = self.layer(x)
            return y if again is None else (y, again)

    model, x = Twice(), torch.randn(2, 9, 4)
    insert_filters(model, "layer", kernel_size=3, zero_init=False)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    before = len(_IN_PROGRESS.calls)
    for found, mask in zip(model(x, pad, twice=True), (pad, pad.flip(0)), strict=True):
        assert torch.equal(found, model(x, mask))
    assert len(_IN_PROGRESS.calls) == before
    recorded = [
        torch.compile(model, backend="eager"),
        torch.export.export(model, (x, pad, True)).module(),
    ]
    for each in recorded:
        for found, mask in zip(each(x, pad, True), (pad, pad.flip(0)), strict=True):
            torch.testing.assert_close(found, model(x, mask))


def filtered_bert() -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Bert with open filters, ids of two texts, and their attention mask."""
    model, layers = text_model("bert", "sdpa")
    insert_filters(model, layers, kernel_size=5, num_filters=4)
    open_gains(model)
    ids = torch.randint(3, 40, (2, LONG))
    mask = (torch.arange(LONG) < torch.tensor([[LONG], [SHORT]])).long()
    return model, ids, mask


def test_a_mask_of_floating_point_zeros_and_ones() -> None:
    """Models of transformers take one; an additive mask of two axes is refused."""
    model, ids, mask = filtered_bert()
    assert torch.equal(model(ids, mask.float())[0], model(ids, mask)[0])
    for unclear in (mask.float().log(), torch.zeros(2, LONG)):
        with pytest.raises(ValueError, match="an integer or boolean"):
            model(ids, unclear)


def test_zero_is_padding_in_padding_mask_of_transformers() -> None:
    settings = {"num_filters": 2, "hidden_size": 8, "codebook_size": 16,
                "upsampling_ratios": [2, 2], "num_lstm_layers": 1}  # fmt: skip
    model = build("EncodecModel", "EncodecConfig", settings)

    class Own(type(model)):  # type: ignore[misc]
        """A user's forward, in which True is padding as in torch."""

        def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Any:
            return self.encoder(x)

    pad = torch.arange(40) >= torch.tensor([[40], [25]])
    for each, mask in ((model, ~pad), (model, (~pad).long()), (Own(model.config), pad)):
        handle = insert_filters(each, "encoder.layers.0", channels_first=True)
        masks: list[Any] = []
        handle.filters["encoder.layers.0"].register_forward_pre_hook(
            lambda module, args, masks=masks: masks.append(args[1])
        )
        each(torch.randn(2, 1, 40), padding_mask=mask)
        assert torch.equal(masks[0], pad)
        handle.remove()


def test_an_argument_of_the_model_can_be_named() -> None:
    model, filter = filtered_model(padding_mask="pad")
    x = torch.randn(2, 9, 4)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    model.inner = causal(9)[None, None].repeat(2, 1, 1, 1)
    assert torch.equal(model(x, pad), filter(x, pad))
    assert torch.equal(model(x), filter(x))
    ignoring, filter = filtered_model(padding_mask=None)
    ignoring.inner = model.inner
    assert torch.equal(ignoring(x, attention_mask=pad), filter(x))


def test_a_mask_of_queries_and_keys_may_include_the_padding() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)

        def forward(self, x: Tensor, padding_mask: Tensor, per_item: bool = True) -> Any:
            mask = ~causal(x.shape[1])
            if per_item:
                mask = (mask | padding_mask.unsqueeze(1)).repeat_interleave(2, 0)
            return self.encoder(x, mask=mask)

    model, x = Encoder().eval(), torch.randn(2, 9, 8)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    handle = insert_filters(model, "encoder.layers", zero_init=False)
    with pytest.raises(ValueError, match=r"cannot tell.*mask of shape \(4, 9, 9\).*padding_mask="):
        model(x, pad)
    none = torch.zeros_like(pad)
    torch.testing.assert_close(model(x, none), model(x, none, per_item=False))
    # One mask for all items does not include the padding, which the model ignores.
    assert torch.equal(model(x, pad, per_item=False), model(x, none, per_item=False))
    handle.remove()
    insert_filters(model, "encoder.layers", padding_mask="padding_mask", zero_init=False)
    torch.testing.assert_close(model(x, pad)[1:, :5], model(x[1:, :5].contiguous(), none[1:, :5]))


def test_the_mask_of_a_decoder_may_include_the_padding() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
            self.decoder = nn.TransformerDecoder(layer, 2)

        def forward(self, x: Tensor, padding_mask: Tensor) -> Any:
            mask = (~causal(x.shape[1]) | padding_mask.unsqueeze(1)).repeat_interleave(2, 0)
            return self.decoder(x, x, tgt_mask=mask)

    model = Decoder().eval()
    insert_filters(model, "decoder.layers", zero_init=False)
    with pytest.raises(ValueError, match="cannot tell"):
        model(torch.randn(2, 9, 8), torch.arange(9) >= torch.tensor([[9], [5]]))


class Masked(nn.Module):
    """A layer that takes no padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor, mask: Any = None, position_ids: Any = None) -> Any:
        return self.norm(x)


class Around(nn.Module):
    """Makes the mask of its layer from a padding mask, as models of transformers do."""

    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.layer = Masked()
        self.checkpointed = checkpointed

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Any:
        mask = causal(9).expand(2, 1, 9, 9).clone()
        if self.checkpointed:
            return checkpoint(self.layer, x, mask, use_reentrant=False)
        return self.layer(x, mask)


@pytest.mark.parametrize("layers", ["", "norm"])
def test_a_mask_per_item_without_a_padding_mask_is_refused(layers: str) -> None:
    model, x = Masked(), torch.randn(2, 9, 8)
    handle = insert_filters(model, layers, zero_init=False)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    for mask in (causal(9) & ~pad[:, None, None], pad[:, None], pad[:, :, None]):
        with pytest.raises(ValueError, match=r"cannot tell.* mask of shape \(2, .*padding_mask="):
            model(x, mask)
    # One mask for all items says nothing about padding.
    for shared in (causal(9), causal(9)[None, None], causal(9).expand(2, 2, 9, 9)):
        assert torch.equal(model(x, shared), model(x))
    handle.remove()
    insert_filters(model, layers, zero_init=False, padding_mask=None)
    assert torch.equal(model(x, mask), model(x))


def test_masks_per_item_of_torch_are_refused() -> None:
    x, pad = torch.randn(2, 9, 8), torch.arange(9) >= torch.tensor([[9], [5]])
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    encoder = nn.TransformerEncoder(layer, 2).eval()
    insert_filters(attention, "", zero_init=False)
    insert_filters(encoder, "layers", zero_init=False)
    shared = ~causal(9)
    per_item = (shared | pad.unsqueeze(1)).repeat_interleave(2, 0)
    calls = (
        lambda mask, **given: attention(x, x, x, attn_mask=mask, **given)[0],
        lambda mask, **given: encoder.layers[0](x, src_mask=mask, **given),
        lambda mask, **given: encoder(x, mask=mask, **given),
    )
    for call, name in zip(calls, ("key", "src_key", "src_key"), strict=True):
        with pytest.raises(ValueError, match=r"cannot tell.*mask of shape \(4, 9, 9\)"):
            call(per_item)
        none = {f"{name}_padding_mask": torch.zeros_like(pad)}
        torch.testing.assert_close(call(shared), call(shared, **none))
        call(per_item, **none)
    # In cross-attention, and of the source in a decoder's layer, it is that of the memory.
    attention(x, x + 1, x, attn_mask=per_item)

    class DecoderLayer(nn.Module):
        def forward(self, x: Tensor, memory: Tensor, src_mask: Any, tgt_mask: Any) -> Tensor:
            return x

    decoder = DecoderLayer()
    (filter,) = insert_filters(decoder, "", zero_init=False).filters.values()
    assert torch.equal(decoder(x, x, pad.unsqueeze(1), shared), filter(x))
    with pytest.raises(ValueError, match="tgt_mask of shape"):
        decoder(x, x, pad.unsqueeze(1), per_item)


def test_the_padding_around_a_layer_with_a_mask_per_item_is_read() -> None:
    model, x = Around(), torch.randn(2, 9, 8)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    handle = insert_filters(model, "layer", zero_init=False)
    filter = handle.filters["layer"]
    assert torch.equal(model(x, pad), filter(model.layer.norm(x), pad))
    assert torch.equal(model(x), filter(model.layer.norm(x)))


@pytest.mark.parametrize("layers", ["layer", "layer.norm"])
def test_recomputation_of_a_layer_with_a_mask_per_item(layers: str) -> None:
    """Nothing in the layer tells of the padding around it, which was kept in the first pass."""
    x, pad = torch.randn(2, 9, 8), torch.arange(9) >= torch.tensor([[9], [5]])
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = Around(checkpointed)
        insert_filters(model, layers, zero_init=False)
        torch.autograd.backward(model(x, pad).square().sum())
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert "kernels" in "".join(gradients[0])
    torch.testing.assert_close(*gradients)


def test_recomputation_of_a_layer_with_a_mask_per_item_and_no_padding() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)

        def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Any:
            mask = ~causal(9).expand(4, 9, 9).clone()
            return checkpoint(self.layer, x, mask, use_reentrant=False)

    model, x = Outer(), torch.randn(2, 9, 8, requires_grad=True)
    insert_filters(model, "layer", zero_init=False)
    torch.autograd.backward(model(x).sum())


class _Seeing(nn.Linear):
    def forward(self, x: Tensor, attention_mask: Any = None, pixel_values: Any = None) -> Tensor:
        return super().forward(x)


class _Reading(nn.Linear):
    def forward(
        self, input_features: Tensor, attention_mask: Any = None, input_ids: Any = None
    ) -> Tensor:
        return super().forward(input_features)


@pytest.mark.parametrize("kind", [_Seeing, _Reading])
def test_a_mask_of_one_of_several_inputs_must_be_named(kind: type[nn.Linear]) -> None:
    model, x = kind(4, 4), torch.randn(2, 9, 4)
    kept = (torch.arange(9) < torch.tensor([[9], [5]])).long()
    handle = insert_filters(model, "", zero_init=False)
    with pytest.raises(ValueError, match="cannot tell"):
        model(x, kept)
    handle.remove()
    insert_filters(model, "", padding_mask="attention_mask", zero_init=False)
    torch.testing.assert_close(model(x, kept)[1:, :5], model(x[1:, :5], kept[1:, :5]))


@pytest.mark.parametrize("layers", ["a.layers", "b.layers", "*.layers.*"])
def test_layers_that_two_modules_share_see_the_mask_of_either(layers: str) -> None:
    class Encoder(nn.Module):
        def __init__(self, layers: nn.ModuleList) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Any:
            return self.layers[1](self.layers[0](x))

    shared = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    model = nn.ModuleDict({"a": Encoder(shared), "b": Encoder(shared)})
    handle = insert_filters(model, layers, zero_init=False)
    assert list(handle.filters) == ["a.layers.0", "a.layers.1"]
    x = torch.randn(2, 9, 4)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    for encoder in model.values():
        torch.testing.assert_close(encoder(x, pad)[1:, :5], encoder(x[1:, :5]))


def test_masks_in_kwargs_are_read() -> None:
    class OpenLayer(nn.Module):
        def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
            return x

    class Open(nn.Module):
        def __init__(self, pass_on: bool) -> None:
            super().__init__()
            self.layer = OpenLayer()
            self.pass_on = pass_on

        def forward(self, x: Tensor, **kwargs: Any) -> Any:
            run = partial(self.layer, **kwargs if self.pass_on else {})
            return checkpoint(run, x, use_reentrant=False)

    x = torch.randn(2, 9, 4, requires_grad=True)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    for name, pass_on in product(("auto", "key_padding_mask"), (True, False)):
        model = Open(pass_on)
        (filter,) = insert_filters(
            model, "layer", padding_mask=name, zero_init=False
        ).filters.values()
        assert torch.equal(model(x.clone()), filter(x))
        y = model(x, key_padding_mask=pad)
        assert torch.equal(y, filter(x, pad))
        recomputed = torch.autograd.grad(y.square().sum(), list(filter.parameters()))
        direct = torch.autograd.grad(filter(x, pad).square().sum(), list(filter.parameters()))
        torch.testing.assert_close(recomputed, direct)
        if not pass_on and name == "auto":
            with pytest.raises(ValueError, match="cannot tell"):  # of which input
                model(x, decoder_x=x, key_padding_mask=pad)
    with pytest.raises(ValueError, match=r"argument 'key_padding'.*'key_padding_mask'"):
        insert_filters(Open(True), "layer", padding_mask="key_padding")


def test_extra_arguments_are_no_masks() -> None:
    class Extra(nn.Module):
        def forward(self, x: Tensor, *extra: Any, attention_mask: Any = None) -> Tensor:
            return x

    model, x = Extra(), torch.randn(2, 9, 4)
    (filter,) = insert_filters(model, "", zero_init=False).filters.values()
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    assert torch.equal(model(x, mask), filter(x))
    assert torch.equal(model(x, mask, attention_mask=mask), filter(x, ~mask))


def masked_layers() -> tuple[nn.Module, Tensor, Tensor]:
    """A model whose layers take no mask, tokens, and their padding."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Any:
            return self.layers[1](self.layers[0](x))

    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    return Masked(), torch.randn(2, 9, 4), pad


def test_removing_one_handle_leaves_the_masks_of_another() -> None:
    model, x, pad = masked_layers()
    insert_filters(model, "layers.0", zero_init=False)
    insert_filters(model, "layers.1").remove()
    torch.testing.assert_close(model(x, pad)[1:, :5], model(x[1:, :5]))


def test_threads_see_their_own_masks() -> None:
    model, x, pad = masked_layers()
    insert_filters(model, "layers", zero_init=False)
    both, masks = threading.Barrier(2), (pad, pad.flip(0))

    def together(*call: Any) -> None:
        both.wait(60)

    hook = model.get_submodule("layers.0").register_forward_pre_hook(together)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(partial(model, x), masks))
    hook.remove()
    for y, mask in zip(results, masks, strict=True):
        torch.testing.assert_close(y, model(x, mask))


def test_masks_do_not_outlive_their_call() -> None:
    model, filter = filtered_model()
    x = torch.randn(2, 9, 4)
    real = torch.arange(9) < torch.tensor([[9], [5]])
    model.inner = real[:, None, None] & causal(9, 4)
    before = len(_IN_PROGRESS.calls)  # such as that of an export that failed
    model(x, attention_mask=real)
    with pytest.raises(ValueError, match="three axes"):
        model(x[0, 0], attention_mask=real)  # fails within the call
    assert torch.equal(model(x), filter(x))

    def interrupt(*call: Any) -> None:
        raise KeyboardInterrupt

    hook = filter.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):  # after which torch runs no hooks
        model(x, attention_mask=real)
    hook.remove()
    assert torch.equal(model(x), filter(x))
    assert len(_IN_PROGRESS.calls) == before
    find_filters(model).remove()
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


@pytest.mark.parametrize(
    ("name", "given", "reentrant"),
    [
        ("llama", "mask", True),
        ("mistral", "mask", False),
        ("llama", "nothing", False),
        ("mistral", "nothing", True),
        ("mistral", "positions", True),
        ("modernbert", "positions", False),
    ],
)
def test_checkpointing_reads_the_same_padding(name: str, given: str, reentrant: bool) -> None:
    """Layers are run again in the backward pass, when the model's call has ended."""
    gradients = []
    ids = torch.randint(3, 40, (2, LONG))
    mask = (torch.arange(LONG) < torch.tensor([[LONG], [SHORT]])).long()
    positions = torch.cat([torch.arange(SHORT), torch.arange(LONG - SHORT)]).expand(2, -1)
    masks = {"attention_mask": mask}
    inputs = {"mask": masks, "nothing": {}, "positions": {"position_ids": positions}}
    for checkpointing in (True, False):
        model, layers = text_model(name, "eager")
        insert_filters(model, layers, kernel_size=5, num_filters=4)
        open_gains(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.train()
        extra = {} if name == "modernbert" else {"use_cache": False}
        y = model(input_ids=ids, **inputs[given], **extra)[0]
        model(input_ids=ids.flip(1))  # another call between forward and backward
        y.square().sum().backward()
        gradients.append([p.grad for p in find_filters(model).parameters()])
    torch.testing.assert_close(*gradients)


def test_a_mask_that_checkpointing_copies_is_refused() -> None:
    """Reentrant checkpointing detaches tensors that are given by position."""
    ids = torch.randint(3, 40, (2, LONG))
    mask = (torch.arange(LONG) < torch.tensor([[LONG], [SHORT]])).long()
    model, layers = text_model("bert", "eager")
    insert_filters(model, layers, kernel_size=5, num_filters=4)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    y = model.train()(input_ids=ids, attention_mask=mask)[0]
    with pytest.raises(ValueError, match=r"recomputed in the backward pass.*use_reentrant=False"):
        y.square().sum().backward()


def test_checkpointing_two_passes_reads_the_padding_of_each() -> None:
    """Both passes share a mask that is a buffer of the model."""

    class Checkpointed(Model):
        reentrant = False

        def forward(self, x: Tensor, pad: Any = None, attention_mask: Any = None) -> Tensor:
            out: Tensor = checkpoint(self.layer, x, self.inner, use_reentrant=self.reentrant)
            return out

    real = torch.arange(9) < torch.tensor([[[9], [5]], [[3], [9]]])
    model = Checkpointed()
    model.inner = causal(9)[None, None].clone()
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    passes = torch.randn(2, 2, 9, 4, requires_grad=True)
    outputs = [model(x, attention_mask=mask) for x, mask in zip(passes, real, strict=True)]
    expected = [handle.filters["layer"](x, ~m) for x, m in zip(passes, real, strict=True)]
    parameters = [passes, *handle.parameters()]
    gradients = [
        torch.autograd.grad(torch.stack(y).square().sum(), parameters) for y in (outputs, expected)
    ]
    torch.testing.assert_close(*gradients)
    model.reentrant = True  # which copies the tokens, so that it is not known which pass it is
    outputs = [model(x, attention_mask=mask) for x, mask in zip(passes, real, strict=True)]
    with pytest.raises(ValueError, match=r"'layer' is recomputed .*use_reentrant=False"):
        torch.stack(outputs).sum().backward()


def test_checkpointing_reads_the_packing_of_each_pass_or_refuses() -> None:
    class Checkpointed(Model):
        reentrant = False

        def forward(self, x: Tensor, position_ids: Any = None) -> Tensor:  # type: ignore[override]
            out: Tensor = checkpoint(self.layer, x, self.inner, use_reentrant=self.reentrant)
            return out

    model = Checkpointed()
    handle = insert_filters(model, "layer", kernel_size=3, zero_init=False)
    filter = handle.filters["layer"]
    passes = torch.randn(3, 1, 9, 4, requires_grad=True)
    lengths = [4, 5], [2, 5, 2], [9]
    positions = [torch.cat([torch.arange(n) for n in each]).unsqueeze(0) for each in lengths]
    ends = [torch.tensor([0, *each]).cumsum(0) for each in lengths]
    outputs = [model(x, each) for x, each in zip(passes, positions, strict=True)]
    expected = [filter(x, cu_seqlens=each) for x, each in zip(passes, ends, strict=True)]
    parameters = [passes, *handle.parameters()]
    gradients = [
        torch.autograd.grad(torch.stack(y).square().sum(), parameters) for y in (outputs, expected)
    ]
    torch.testing.assert_close(*gradients)
    model.reentrant = True  # which copies the tokens
    y = model(passes[0], positions[0])
    with pytest.raises(ValueError, match=r"'layer' is recomputed.*packed.*use_reentrant=False"):
        torch.autograd.backward(y.sum())
    # With padding, the first pass was not packed.
    model.inner = torch.arange(9).unsqueeze(0) < 5
    model(passes[0]).sum().backward()


def test_padding_that_recomputation_cannot_find_is_refused() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.reentrant = False

        def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Any:
            return checkpoint(self.layer, x, use_reentrant=self.reentrant)

    model, x = Checkpointed(), torch.randn(2, 9, 4, requires_grad=True)
    insert_filters(model, "layer", kernel_size=3, zero_init=False)
    kept = torch.arange(9) < torch.tensor([[9], [5]])
    y = model(x, kept) + model(x, kept.clone())
    torch.autograd.backward(y.sum())
    y = model(x, kept) + model(x, ~kept)  # the same tokens with other padding
    with pytest.raises(ValueError, match=r"filtered with several paddings.* a copy of the tokens"):
        torch.autograd.backward(y.sum())
    torch.autograd.backward((model(x + 0, kept) + model(x + 0, ~kept)).sum())
    # What is not checkpointed is not compared.
    meta, fake = Checkpointed().to("meta"), torch.empty(2, 9, 4, device="meta")
    insert_filters(meta, "layer", kernel_size=3, zero_init=False)
    for mask in (kept, ~kept):
        meta(fake, mask.to("meta"))
    model.reentrant = True  # passes a copy of the tokens
    y = model(x, kept)
    with pytest.raises(ValueError, match=r"recomputed.*each layer by itself, with use_reentrant=F"):
        torch.autograd.backward(y.sum())


def test_compiled_models_read_the_padding() -> None:
    model, ids, mask = filtered_bert()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(
        compiled(input_ids=ids, attention_mask=mask)[0],
        model(input_ids=ids, attention_mask=mask)[0],
    )

    class Masked(nn.Linear):
        def forward(self, input: Tensor, padding_mask: Tensor | None = None) -> Tensor:
            return super().forward(input)

    layer = nn.Sequential(Masked(4, 4))
    insert_filters(layer, "0", zero_init=False)
    x, ones = torch.randn(2, 9, 4), torch.ones(2, 9)
    with pytest.raises(RuntimeError, match="not an additive padding mask"):
        torch.compile(layer[0], backend="eager")(x, padding_mask=ones)


@pytest.mark.parametrize(
    ("name", "attention", "padding_mask"),
    [("llama", "eager", "auto"), ("llama", "sdpa", None), ("gemma3", "sdpa", "auto")],
)
@torch.no_grad()
def test_packed_text_equals_each_alone(name: str, attention: str, padding_mask: Any) -> None:
    """transformers packs by positions that begin anew, or by ``cu_seq_lens_q``."""
    model, layers = text_model(name, attention)
    insert_filters(model, layers, kernel_size=5, num_filters=4, padding_mask=padding_mask)
    open_gains(model)
    ids = torch.randint(3, 40, (1, SHORT + LONG))
    parts = [model(input_ids=part)[0] for part in ids.split([SHORT, LONG], dim=1)]
    positions = torch.cat([torch.arange(SHORT), torch.arange(LONG)]).unsqueeze(0)
    ends = torch.tensor([0, SHORT, SHORT + LONG], dtype=torch.int32)
    for extra in ({}, {"cu_seq_lens_q": ends}):
        packed = model(input_ids=ids, position_ids=positions, use_cache=False, **extra)[0]
        torch.testing.assert_close(packed, torch.cat(parts, dim=1), rtol=1e-4, atol=1e-5)
    # A cache that the model makes itself, the default, is one in training and evaluation.
    cached = model(input_ids=ids, position_ids=positions)[0]
    with torch.enable_grad():
        torch.testing.assert_close(model(input_ids=ids, position_ids=positions)[0], cached)
    # One row of positions is that of all items.
    both = model(input_ids=ids.repeat(2, 1), position_ids=positions, use_cache=False)[0]
    torch.testing.assert_close(both[1:], packed, rtol=1e-4, atol=1e-5)
    plain = model(input_ids=ids, position_ids=torch.arange(SHORT + LONG).unsqueeze(0))[0]
    torch.testing.assert_close(plain, model(input_ids=ids)[0])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_positions_that_are_filled_anew_are_read_anew(context: Any) -> None:
    class Positioned(nn.Module):
        def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
            return x

    model = Positioned()
    insert_filters(model, "", kernel_size=3, zero_init=False)
    with context():
        x, positions = torch.randn(1, 9, 4), torch.arange(9).unsqueeze(0)
        for ends in ([4], [2, 7], [], [4]):
            model(x, positions)
            positions[0] = torch.cat([p - p[0] for p in torch.arange(9).tensor_split(ends)])
            assert torch.equal(model(x, positions), model(x, positions.clone()))
            positions.data[0] = torch.arange(9).flip(0)  # leaves the tensor's version
            assert torch.equal(model(x, positions), model(x, positions.clone()))


def test_positions_that_repeat_restart() -> None:
    class Positioned(nn.Module):
        def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
            return x

    model, x = Positioned(), torch.randn(1, 9, 4)
    (filter,) = insert_filters(model, "", kernel_size=3, zero_init=False).filters.values()
    y = model(x, torch.tensor([[0, 0, 1, 2, 0, 0, 1, 2, 3]]))
    assert torch.equal(y, filter(x, cu_seqlens=torch.tensor([0, 1, 4, 5, 9])))


@pytest.mark.parametrize("name", ["cu_seqlens", "cu_seqlens_q", "cu_seq_lens", "cu_seq_lens_q"])
def test_packed_sequences_of_other_libraries_are_read(name: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def forward(self, x, {name}=None):\n    return self.layer(x)", space)
    model, x = type("Named", (nn.Module,), space)(), torch.randn(1, 9, 4)
    model.layer = nn.Linear(4, 4)
    insert_filters(model, "layer", kernel_size=3, zero_init=False)
    packed = model(x, torch.tensor([0, 5, 9]))
    torch.testing.assert_close(packed[:, 5:], model(x[:, 5:]))
    assert torch.equal(model(x, [0, 5, 9]), packed)
    two = torch.cat([x, x])
    torch.testing.assert_close(model(two, torch.tensor([0, 5, 9, 14, 18]))[1:], packed)
    with pytest.raises(ValueError, match=f"{name}, whose sequences do not end where the items"):
        model(two, torch.tensor([0, 7, 12]))  # of padded items, without their padding


def test_recorded_models_refuse_positions_that_restart() -> None:
    class Positioned(nn.Module):
        def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
            return x

    model, x = Positioned(), torch.randn(2, 9, 4)
    insert_filters(model, "", kernel_size=3)
    plain = torch.arange(9).expand(2, 9).clone()
    restarting = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4]).expand(2, 9).clone()
    torch.jit.trace(model, (x, plain))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="cannot separate sequences by position_ids"):
        torch.jit.trace(model, (x, restarting))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="cannot separate sequences by position_ids"):
        torch.vmap(model)(x.unsqueeze(1), restarting.unsqueeze(1))
    y, _ = torch.func.jvp(lambda x: model(x, restarting), (x,), (x,))
    assert torch.equal(y, model(x, restarting))
    torch.testing.assert_close(torch.vmap(lambda x: model(x, restarting))(x[None])[0], y)
    with pytest.warns(UserWarning, match="take each item for one sequence"):
        torch.export.export(model, (x, restarting))


def test_packing_of_the_text_is_not_that_of_the_sound() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = nn.Linear(4, 4)

        def forward(
            self, input_ids: Tensor, input_values: Tensor, position_ids: Any = None, **kwargs: Any
        ) -> Tensor:
            y: Tensor = self.tower(input_values)
            return y

    model, x, ids = Both(), torch.randn(1, 9, 4), torch.ones(1, 9, dtype=torch.long)
    insert_filters(model, "tower", kernel_size=3, zero_init=False)
    expected = model(ids, x)
    assert torch.equal(
        model(ids, x, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])), expected
    )
    assert torch.equal(model(ids, x, cu_seq_lens_q=torch.tensor([0, 4, 9])), expected)


class Packed(nn.Module):
    """A layer inside of which a norm knows no packing."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(
        self,
        x: Tensor,
        cu_seq_lens_q: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Any:
        return self.norm(x)


class OnlyEnds(Packed):
    def forward(self, x: Tensor, cu_seq_lens_q: Tensor | None = None) -> Any:  # type: ignore[override]
        return self.norm(x)


@pytest.mark.parametrize("kind", [Packed, OnlyEnds])
@pytest.mark.parametrize("layers", ["", "norm"])
def test_ends_of_packed_sequences_are_read_by_name_and_position(
    kind: type[Packed], layers: str
) -> None:
    model, x, ends = kind(), torch.randn(1, 9, 4), torch.tensor([0, 4, 9])
    (filter,) = insert_filters(model, layers, kernel_size=3, zero_init=False).filters.values()
    expected = filter(nn.functional.layer_norm(x, (4,)), cu_seqlens=ends)
    assert torch.equal(model(x, ends), expected)
    assert torch.equal(model(x, cu_seq_lens_q=ends), expected)


def test_packed_sequences_beside_a_padding_mask() -> None:
    model, x, ends = Packed(), torch.randn(1, 9, 4), torch.tensor([0, 4, 9])
    insert_filters(model, "norm", kernel_size=3, zero_init=False)
    ones = torch.ones(1, 9, dtype=torch.bool)
    packed, whole = model(x, ends), model(x)
    assert torch.equal(model(x, ends, attention_mask=ones), packed)
    # Beside a mask, transformers does not read positions.
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    assert torch.equal(model(x, position_ids=places), packed)
    assert torch.equal(model(x, position_ids=places, attention_mask=ones), whole)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(x, ends, attention_mask=ones), packed)
    padded = torch.arange(9).unsqueeze(0) < 7
    for call, error in ((model, ValueError), (compiled, RuntimeError)):
        with pytest.raises(error, match=r"'norm' gets packed sequences.*shows padding"):
            call(x, ends, attention_mask=padded)


def test_positions_beside_a_cache_pack_in_training_only() -> None:
    class Cached(nn.Module):
        def forward(self, x: Tensor, position_ids: Tensor, past_key_values: Any = None) -> Tensor:
            return x

    class Cache:
        def get_seq_length(self) -> int:
            return 0

    model, x, places = Cached(), torch.randn(1, 9, 4), torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4, 5]])
    insert_filters(model, "", kernel_size=3, zero_init=False, causal=True)
    packed, whole = model(x, places), model(x, torch.arange(9).unsqueeze(0))
    assert not torch.equal(packed, whole)
    assert torch.equal(model(x, places, Cache()), packed)
    with torch.no_grad():
        assert torch.equal(model(x, places, Cache()), whole)


def test_compiled_models_refuse_positions_that_pack() -> None:
    class Positioned(nn.Module):
        def forward(self, x: Tensor, position_ids: Tensor, **kwargs: Any) -> Tensor:
            return x

    model, x, ends = Positioned(), torch.randn(1, 9, 4), torch.tensor([0, 4, 9])
    insert_filters(model, "", kernel_size=3, zero_init=False)
    compiled = torch.compile(model, backend="eager")
    plain, packed = torch.arange(9).unsqueeze(0), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    assert torch.equal(compiled(x, plain), model(x, plain))
    torch.testing.assert_close(compiled(x, packed, cu_seq_lens_q=ends), model(x, packed))
    with pytest.raises(RuntimeError, match="compiled models with filters need cu_seq_lens_q"):
        compiled(x, packed)


def test_compiled_models_do_not_depend_on_packed_passes_of_others() -> None:
    x, ends = torch.randn(1, 9, 4), torch.tensor([0, 4, 9])
    others, model = [Packed()], Packed()
    insert_filters(others[0], "", kernel_size=3, zero_init=False)
    insert_filters(model, "", kernel_size=3, zero_init=False)
    others[0](x, cu_seq_lens_q=ends)

    def collecting(graph: Any, inputs: Any) -> Any:
        others.clear()
        gc.collect()
        return graph

    assert torch.equal(torch.compile(model, backend=collecting)(x), model(x))


def test_the_mask_of_the_source_is_not_that_of_the_target() -> None:
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True).eval()
    source, target = torch.randn(2, 9, 8), torch.randn(2, 9, 8)
    pad = torch.arange(9) >= torch.tensor([[9], [5]])
    handle = insert_filters(model, "decoder.layers", kernel_size=3, zero_init=False)
    masks: list[Any] = []
    filter = handle.filters["decoder.layers.0"]
    filter.register_forward_pre_hook(lambda module, args: masks.append(args[1]))
    model(source, target, src_key_padding_mask=pad)
    model(source, target, src_key_padding_mask=pad, tgt_key_padding_mask=pad.roll(1, 0))
    assert masks[0] is None
    assert torch.equal(masks[1], pad.roll(1, 0))
