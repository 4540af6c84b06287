"""Filters in models of other libraries, with random weights."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spaudio.filters import TokenFilter, find_filters, insert_filters
from tests.filters.cases import open_gains
from tests.filters.hf_models import text_model

Case = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


def transformer_encoder() -> Case:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2), (torch.randn(2, 20, 16),), {"layers": "layers"}


def wav2vec2() -> Case:
    """The class of ``wav2vec2_base``, with two small layers."""
    models = pytest.importorskip("torchaudio.models")
    model = models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(16, 10, 5), (16, 8, 8), (16, 4, 4)],
        extractor_conv_bias=False,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=2,
        encoder_num_layers=2,
        encoder_num_heads=2,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=32,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    arguments = torch.randn(2, 4000), torch.tensor([4000, 2500])
    return model, arguments, {"layers": "encoder.transformer.layers"}


def conformer() -> Case:
    models = pytest.importorskip("torchaudio.models")
    arguments = torch.randn(2, 20, 16), torch.tensor([20, 11])
    inserted = {"layers": "conformer_layers", "batch_first": False}
    return models.Conformer(16, 2, 32, 2, 7), arguments, inserted


def whisper_encoder() -> Case:
    transformers = pytest.importorskip("transformers")
    whisper = pytest.importorskip("transformers.models.whisper.modeling_whisper")
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        max_source_positions=25,
        num_mel_bins=20,
    )
    return whisper.WhisperEncoder(config), (torch.randn(2, 20, 50),), {"layers": "layers"}


MODELS: list[Callable[[], Case]] = [
    transformer_encoder,
    wav2vec2,
    conformer,
    whisper_encoder,
]


def run(model: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
    """The model's first output, with the same dropout each time."""
    torch.manual_seed(3)
    output = model(*arguments)
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_insert_train_copy_and_remove(make: Callable[[], Case]) -> None:
    torch.manual_seed(0)
    model, arguments, inserted = make()
    for training in (True, False):
        model.train(training)
        plain = run(model, arguments)
        with torch.no_grad():
            fast = run(model, arguments)
        handle = insert_filters(model, num_filters=6, kernel_size=5, **inserted)
        assert len(handle) >= 2
        assert torch.equal(run(model, arguments), plain)
        with torch.no_grad():
            assert torch.equal(run(model, arguments), fast)
        open_gains(model)
        filtered = run(model, arguments)
        assert not torch.allclose(filtered, plain)
        torch.autograd.backward(filtered.square().sum())
        for parameter in handle.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
        twin = copy.deepcopy(model)
        assert torch.equal(run(twin, arguments), filtered)
        twin.load_state_dict(model.state_dict())
        handle.remove()
        assert torch.equal(run(model, arguments), plain)
        find_filters(twin).remove()
        assert torch.equal(run(twin, arguments), plain)


@pytest.mark.parametrize("nested", [True, False])
def test_padding_of_transformer_encoder_stays_out(nested: bool) -> None:
    """In eval mode it converts padded input to nested tensors."""
    torch.manual_seed(0)
    model, (both,), inserted = transformer_encoder()
    # A layer's fast path uses their weights without a call and would bypass a filter.
    for name in ("layers.0.norm1", "layers.1.self_attn.out_proj"):
        with pytest.raises(ValueError, match=f"'{name}' lies inside a .*name the layer itself"):
            insert_filters(model, name)
    insert_filters(model.eval(), num_filters=6, kernel_size=5, **inserted)
    open_gains(model)
    mask = torch.arange(20) >= torch.tensor([[20], [11]])
    with torch.no_grad() if nested else torch.enable_grad():
        padded = model(both, src_key_padding_mask=mask)
        torch.testing.assert_close(padded[1:, :11], model(both[1:, :11]), rtol=1e-4, atol=1e-5)


def test_jagged_tensors_stay_jagged() -> None:
    """They can be added to the layer's input."""
    model = nn.ModuleList([nn.Linear(4, 4)])
    insert_filters(model, "0", zero_init=False)
    items = [torch.randn(n, 4) for n in (5, 3)]
    x = torch.nested.nested_tensor(items, layout=torch.jagged)
    y = model[0](x) + x
    for item, result in zip(items, y.unbind(), strict=True):
        torch.testing.assert_close(result, model[0](item.unsqueeze(0))[0] + item)


def test_nested_tensors_with_channels_first_are_refused() -> None:
    model = nn.Sequential(nn.Identity())
    insert_filters(model, "0", channels_first=True)
    for layout in (torch.jagged, torch.strided):
        x = torch.nested.nested_tensor([torch.randn(4, n) for n in (5, 5)], layout=layout)
        with pytest.raises(ValueError, match=r"'0' returned a nested tensor.*channels_first=True"):
            model(x)


def test_padding_of_wav2vec2_stays_out() -> None:
    """Its mask is additive and has four axes."""
    torch.manual_seed(0)
    model, _, inserted = wav2vec2()
    handle = insert_filters(model.eval(), zero_init=False, **inserted)
    layer = model.get_submodule("encoder.transformer.layers.0")
    x = torch.randn(2, 12, 16)
    mask = torch.arange(12) >= torch.tensor([[12], [7]])
    additive = (-1e4 * mask[:, None, None, :].float()).expand(2, 1, 12, 12)
    filtered, _ = layer(x, additive)
    filter = handle.filters["encoder.transformer.layers.0"]
    handle.remove()
    plain, _ = layer(x, additive)
    torch.testing.assert_close(filtered, filter(plain, mask))


def test_hidden_states_and_checkpointing_of_transformers() -> None:
    """The recorded hidden states are filtered, and checkpointing recomputes the filters."""
    model, (x,), inserted = whisper_encoder()
    handle = insert_filters(model, num_filters=6, kernel_size=5, **inserted)
    plain = model.eval()(x, output_hidden_states=True).hidden_states
    open_gains(model)
    filtered = model(x, output_hidden_states=True).hidden_states
    filter = handle.filters["layers.0"]
    torch.testing.assert_close(filtered[1], filter(plain[1]))

    model.gradient_checkpointing_enable()  # type: ignore[operator]
    gradients = []
    for checkpointing in (True, False):
        if not checkpointing:
            model.gradient_checkpointing_disable()  # type: ignore[operator]
        model.train().zero_grad()
        torch.autograd.backward(run(model, (x,)).square().sum())
        gradients.append([p.grad for p in handle.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_filters_in_a_class_of_transformers_are_initialised(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    plain, layers = text_model("bert")
    plain.save_pretrained(tmp_path)

    class Filtered(transformers.BertModel):  # type: ignore[name-defined, misc]
        def __init__(self, config: Any, **options: Any) -> None:
            super().__init__(config, **options)
            insert_filters(self, layers)

        def _init_weights(self, module: nn.Module) -> None:
            super()._init_weights(module)
            if isinstance(module, TokenFilter) and hasattr(module, "reset_parameters"):
                module.reset_parameters()

    model, ids = Filtered.from_pretrained(tmp_path).eval(), torch.randint(3, 40, (2, 9))
    torch.testing.assert_close(model(ids)[0], plain(ids)[0])
