"""Filters beside a key/value cache: generation with a cache equals that without."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spaudio.filters import insert_filters
from tests.filters.cases import open_gains
from tests.filters.hf_models import DECODER, build, causal_model

LAYERS = "model.layers"
STATES = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 40, "state_size": 4,
          "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
CAUSAL: dict[str, Any] = {"causal": True, "kernel_size": 4}
BART = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}  # fmt: skip


def filtered(
    name: str = "Llama", filter: str = "bank", layers: str = LAYERS, **changes: Any
) -> Any:
    model = causal_model(name, **changes)
    options = {"scales": [(3, 2), (3, 4)], "causal": True} if filter == "multiscale" else CAUSAL
    insert_filters(model, layers, filter, **options)
    open_gains(model)
    return model


def generate(model: Any, ids: Tensor, cached: bool, **options: Any) -> Tensor:
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False} | options
    out: Tensor = model.generate(ids, use_cache=cached, pad_token_id=0, **settings)
    return out


class Cached(nn.Module):
    """A module with a cache that is not of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, kv_cache: Any = None, input_pos: Any = None) -> Tensor:
        y: Tensor = self.layer(x)
        return y


def prompt(batch: int = 2, tokens: int = 5) -> Tensor:
    return torch.randint(3, 40, (batch, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "filter", "layers"),
    [
        ("Llama", "bank", LAYERS),
        ("Llama", "multiscale", "model.layers.*.input_layernorm"),
        ("Mistral", "fir", LAYERS),
        ("Llama", "depthwise", ["model.embed_tokens", "model.layers.1"]),
        ("Mpt", "depthwise", "transformer.blocks"),  # in a layer, its mask is True at padding
    ],
)
def test_generate_equals_the_pass_without_cache(name: str, filter: str, layers: Any) -> None:
    changes = {
        "Mistral": {"sliding_window": 4},
        "Mpt": {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 64},
    }
    model = filtered(name, filter, layers, **changes.get(name, {}))
    ids = prompt()
    one = torch.ones_like(ids)
    left = one.clone()
    left[1, :2] = 0
    for mask in (one, left):
        for options in ({}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}):
            runs = [generate(model, ids, c, attention_mask=mask, **options) for c in (True, False)]
            assert torch.equal(*runs), options


def test_a_static_cache_needs_to_be_told_of_the_padding() -> None:
    """``generate`` gives the model a mask of four axes then."""
    ids = prompt()
    with pytest.raises(ValueError, match=r"cannot tell the padding.*padding_mask=None"):
        generate(filtered(), ids, True, cache_implementation="static")
    model = causal_model()
    insert_filters(model, LAYERS, padding_mask=None, **CAUSAL)
    open_gains(model)
    static = generate(model, ids, True, cache_implementation="static")
    assert torch.equal(static, generate(model, ids, False))
    # Positions that begin anew after padding on the left are not those of packed sequences.
    left = torch.ones_like(ids)
    left[1, :2] = 0
    for extra in ({}, {"cache_implementation": "static"}):
        assert generate(model, ids, True, attention_mask=left, **extra).shape == (2, 13)


@torch.no_grad()
def test_logits_of_pieces_equal_those_of_the_whole() -> None:
    transformers = pytest.importorskip("transformers")
    model, ids = filtered(), prompt(2, 12)
    whole = model(ids).logits
    for pieces in ([1] * 12, [5, 1, 4, 2], [2, 10]):
        cache = transformers.DynamicCache(config=model.config)
        parts = [model(part, past_key_values=cache).logits for part in ids.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)
    # The same object with other tokens, after a reset.
    cache.reset()
    torch.testing.assert_close(model(ids, past_key_values=cache).logits, whole)
    # The model makes the cache.
    made = model(ids[:, :7], use_cache=True).past_key_values
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made):
        rest = model(ids[:, 7:], past_key_values=copied).logits
        torch.testing.assert_close(rest, whole[:, 7:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_in_the_first_of_two_passes() -> None:
    model, ids = filtered(), prompt(2, 8)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    whole = model(ids, attention_mask=mask, position_ids=places).logits
    first = model(ids[:, :5], attention_mask=mask[:, :5], position_ids=places[:, :5])
    rest = model(ids[:, 5:], attention_mask=mask, position_ids=places[:, 5:],
                 past_key_values=first.past_key_values).logits  # fmt: skip
    torch.testing.assert_close(rest, whole[:, 5:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_layer_that_runs_twice_in_a_pass_cannot_continue_a_cache() -> None:
    transformers = pytest.importorskip("transformers")

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor, past_key_values: Any = None) -> Any:
            y = self.linear(self.linear(x))
            past_key_values.update(x[:, None], x[:, None], 0)
            return y

    model, cache = Twice(), transformers.DynamicCache()
    insert_filters(model, "linear", **CAUSAL)
    model(torch.randn(2, 5, 8), past_key_values=cache)
    with pytest.raises(ValueError, match="one pass at a time"):
        model(torch.randn(2, 1, 8), past_key_values=cache)


@torch.no_grad()
def test_cropping_and_reordering() -> None:
    model, ids = filtered(), prompt(2, 12)
    whole = model(ids).logits

    def end(cache: Any) -> int:
        return int(cache.get_seq_length())

    cache = model(ids[:, :4], use_cache=True).past_key_values
    rejected = torch.cat([ids[:, 4:6], prompt(2, 3)], dim=1)
    model(rejected, past_key_values=cache)
    cache.crop(-3)  # to 6 tokens
    assert end(cache) == 6
    rest = model(ids[:, 6:9], past_key_values=cache).logits
    torch.testing.assert_close(rest, whole[:, 6:9], rtol=1e-4, atol=1e-4)
    cache.reorder_cache(beam_idx=torch.tensor([1, 1]))
    after = model(ids[[1, 1], 9:10], past_key_values=cache).logits
    torch.testing.assert_close(after, whole[[1, 1], 9:10], rtol=1e-4, atol=1e-4)
    cache.batch_select_indices(indices=torch.tensor([0]))
    cache.batch_repeat_interleave(3)
    after = model(ids[[1, 1, 1], 10:11], past_key_values=cache).logits
    torch.testing.assert_close(after, whole[[1, 1, 1], 10:11], rtol=1e-4, atol=1e-4)
    cache.crop(-6)
    with pytest.raises(ValueError, match=r"use_cache=False.*from token 5.*cropped to before"):
        model(ids[[1, 1, 1], 5:6], past_key_values=cache)


def test_assisted_generation_crops_the_cache() -> None:
    model = filtered()
    assistant = causal_model()
    ids = prompt(1)
    plain = generate(model, ids, False)
    assert torch.equal(generate(model, ids, True, assistant_model=assistant), plain)
    assert torch.equal(generate(model, ids, True, prompt_lookup_num_tokens=2), plain)


def test_what_cannot_continue_a_cache_is_refused() -> None:
    ids = prompt()
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("bank", {}, "it is not causal.*pass causal=True"),
        ("adaptive", {"causal": True, "mask_width": 8, "mask_heads": 2}, "attends to all tokens"),
    ]
    for filter, options, why in refused:
        model = causal_model()
        insert_filters(model, LAYERS, filter, **options)
        open_gains(model)
        generate(model, ids, False)
        model(ids)  # transformers makes a cache here too, but nothing continues it
        with pytest.raises(ValueError, match=rf"use_cache=False.*'model\.layers\.0'.*({why})"):
            generate(model, ids, True)
    model = causal_model()
    cache = model(ids).past_key_values  # filled before the filters were inserted
    insert_filters(model, LAYERS, **CAUSAL)
    with pytest.raises(ValueError, match="was not filled by"):
        model(ids, past_key_values=cache)
    other = Cached()  # of another library
    insert_filters(other, "layer", **CAUSAL)
    other(torch.randn(1, 1, 8))
    with pytest.raises(ValueError, match=r"use_cache=False, or no cache, .* of type dict"):
        other(torch.randn(1, 1, 8), kv_cache={})
    other(torch.randn(1, 2, 8), input_pos=torch.arange(2))
    with pytest.raises(ValueError, match=r"use_cache=False, or no cache, .* of type Tensor"):
        other(torch.randn(1, 1, 8), input_pos=torch.tensor([2]))
    for name, layers, sizes in (
        ("Mamba", "backbone.layers", STATES),
        ("Rwkv", "rwkv.blocks", STATES | {"attention_hidden_size": 16, "context_length": 32}),
    ):
        recurrent = build(f"{name}ForCausalLM", f"{name}Config", sizes)
        insert_filters(recurrent, layers, **CAUSAL)
        assert recurrent(ids).logits.shape == (2, 5, 40)
        generate(recurrent, ids, False)
        with pytest.raises(ValueError, match=r"use_cache=False"):
            generate(recurrent, ids, True)
    removed = causal_model()
    handle = insert_filters(removed, LAYERS, **CAUSAL)
    cache = removed(ids).past_key_values
    handle.remove()
    removed(ids, past_key_values=cache)
    insert_filters(removed, LAYERS, **CAUSAL)
    with pytest.raises(ValueError, match=r"use_cache=False.*was not filled by"):
        removed(ids, past_key_values=cache)
    # Tokens that did not pass through the filter.
    model = filtered()
    cache = model(ids).past_key_values
    for layer in range(2):
        cache.update(*torch.zeros(2, 2, 1, 2, 8), layer)
    with pytest.raises(ValueError, match=r"use_cache=False.*was not filled by"):
        model(ids, past_key_values=cache)
    # Within a block nothing tells where a sequence starts; the names of its layers are not unique.
    blocks = causal_model()
    for block in blocks.model.layers:
        insert_filters(block, "mlp", padding_mask=None, **CAUSAL)
    with pytest.raises(ValueError, match="insert filters into the whole model"):
        generate(blocks, ids, True)
    identity = causal_model()
    insert_filters(identity, LAYERS, "none")
    generate(identity, ids, True)


@torch.no_grad()
def test_what_a_layer_returned_may_be_changed_in_place() -> None:
    transformers = pytest.importorskip("transformers")

    class Embedding(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:
            self.last = super().forward(input)
            return self.last

    model, ids = causal_model(), prompt()
    model.model.embed_tokens.__class__ = Embedding
    insert_filters(model, "model.embed_tokens", **CAUSAL)
    open_gains(model)
    expected = generate(model, ids, False)
    cache = transformers.DynamicCache(config=model.config)
    model(ids, past_key_values=cache)
    model.model.embed_tokens.last += 1
    found = model(expected[:, 5:], past_key_values=cache).logits
    torch.testing.assert_close(found, model(expected).logits[:, 5:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_encoder_decoder_with_a_cache() -> None:
    settings = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "vocab_size": 40,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32, "init_std": 0.3, "pad_token_id": 0, "bos_token_id": 1,
                "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip
    model = build("BartForConditionalGeneration", "BartConfig", settings)
    insert_filters(model, "model.decoder.layers", **CAUSAL)
    insert_filters(model, "model.encoder.layers", kernel_size=3)
    open_gains(model)
    ids = prompt()
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    for beams in (1, 3):
        runs = [
            generate(model, ids, c, attention_mask=mask, num_beams=beams) for c in (True, False)
        ]
        assert torch.equal(*runs)
    # The mask of the encoder, of equal shape, is not that of the decoder.
    decoder = ids.flip(1)
    full = model(ids, decoder_input_ids=decoder).logits
    encoded = model.model.encoder(ids)
    again = model(encoder_outputs=encoded, attention_mask=torch.ones_like(mask),
                  decoder_input_ids=decoder).logits  # fmt: skip
    torch.testing.assert_close(again, full)
    # The cache is that of the decoder: another text is encoded from its own beginning.
    model = build("BartForConditionalGeneration", "BartConfig", settings)
    insert_filters(model, "model.encoder.layers", **CAUSAL)
    open_gains(model)
    transformers = pytest.importorskip("transformers")
    parts = [transformers.DynamicCache(config=model.config) for _ in range(2)]
    cache = transformers.EncoderDecoderCache(*parts)
    model(ids, decoder_input_ids=decoder[:, :2], past_key_values=cache)
    other = ids.flip(0, 1)
    found = model(other, decoder_input_ids=decoder[:, 2:], past_key_values=cache)
    torch.testing.assert_close(
        found.encoder_last_hidden_state, model.model.encoder(other).last_hidden_state
    )


@pytest.mark.parametrize(
    ("name", "settings", "layers", "warned"),
    [
        ("Llama", {}, LAYERS, True),
        ("Llama", {}, "model.layers.0.input_layernorm", True),
        ("Llama", {}, "model.embed_tokens", True),
        (
            "Mpt",
            {"d_model": 16, "n_heads": 2, "n_layers": 2},
            "transformer.blocks",
            True,
        ),  # no flag
        ("Bart", {}, "model.decoder.layers", True),
        ("Bart", {}, "model.encoder.layers.*.final_layer_norm", False),
        ("Bert", {}, "bert.encoder.layer", False),
    ],
)
def test_filters_that_see_the_future_of_a_causal_model_are_announced(
    name: str, settings: dict[str, Any], layers: str, warned: bool
) -> None:
    """The attention of MPT has no flag that says so."""
    kind = {"Bart": "ForConditionalGeneration", "Bert": "ForMaskedLM"}.get(name, "ForCausalLM")
    for options, expected in (({}, warned), ({"causal": True}, False), ({"kernel_size": 1}, False)):
        model = build(f"{name}{kind}", f"{name}Config", DECODER | BART | settings)
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            insert_filters(model, layers, "depthwise", **options)
        found = [str(one.message) for one in given if one.filename == __file__]
        assert [("causal=True" in one) for one in found] == [True] * expected


@torch.no_grad()
def test_weights_that_a_hook_loads_and_packing_of_several_requests() -> None:
    accelerate = pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    model = filtered(filter="depthwise")
    expected = generate(model, prompt(1), cached=True)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert torch.equal(generate(model, prompt(1), cached=True), expected)
    # Continuous batching has a cache that does not tell its length.
    model = causal_model("Llama")
    insert_filters(model, LAYERS, "depthwise", padding_mask=None, **CAUSAL)
    settings = transformers.GenerationConfig(
        max_new_tokens=3, do_sample=False, eos_token_id=1, pad_token_id=0
    )
    small = transformers.ContinuousBatchingConfig(num_blocks=4, max_batch_tokens=64)
    found = model.generate_batch(  # without a limit, it takes most of the memory
        [[5, 6, 7], [8, 9]],
        generation_config=settings,
        continuous_batching_config=small,
        warmup=False,
    )
    assert all("use_cache=False, or no cache" in str(one.error) for one in found.values())


def test_fake_tensors_pass_through() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        model = filtered(filter="depthwise")
        assert model(prompt()).logits.shape == (2, 5, 40)
