from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters import make_filter
from spaudio.filters.transformer import rotary
from spaudio.model.encoder import Encoder, EncoderConfig
from spaudio.model.positions import LearnedPositions


def encoder(filter_name: str = "none", **settings: object) -> Encoder:
    torch.manual_seed(0)
    config = EncoderConfig(**{"dim": 16, "layers": 2, "heads": 2, "dropout": 0.0, **settings})  # type: ignore[arg-type]
    options = {"num_filters": 6, "kernel_size": 5} if filter_name == "bank" else {}
    filters = [
        make_filter(filter_name, config.dim, causal=config.causal, **options)
        for _ in range(config.layers)
    ]
    return Encoder(config, filters).eval()


def test_layers_equal_torchs_own_pre_norm_layer() -> None:
    ours = encoder(positions="none", layers=1)
    theirs = nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    layer = ours.layers[0]
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": layer.attention.qkv.weight,
            "self_attn.in_proj_bias": layer.attention.qkv.bias,
            "self_attn.out_proj.weight": layer.attention.out.weight,
            "self_attn.out_proj.bias": layer.attention.out.bias,
            "norm1.weight": layer.attention_norm.weight,
            "norm1.bias": layer.attention_norm.bias,
            "norm2.weight": layer.feed_forward[0].weight,
            "norm2.bias": layer.feed_forward[0].bias,
            "linear1.weight": layer.feed_forward[1].weight,
            "linear1.bias": layer.feed_forward[1].bias,
            "linear2.weight": layer.feed_forward[3].weight,
            "linear2.bias": layer.feed_forward[3].bias,
        }
    )
    x = torch.randn(3, 11, 16)
    torch.testing.assert_close(ours(x), ours.norm(theirs(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("positions", "filter_name", "place", "causal"),
    [
        ("rotary", "bank", "after", False),
        ("rotary", "none", "after", True),
        ("learned", "bank", "attention", True),
        ("learned", "none", "after", False),
        ("none", "bank", "attention", False),
        ("none", "bank", "after", True),
    ],
)
def test_a_clip_alone_equals_the_same_clip_padded_in_a_batch(
    positions: str, filter_name: str, place: str, causal: bool
) -> None:
    model = encoder(filter_name, positions=positions, causal=causal, filter_place=place)
    short, long = torch.randn(1, 7, 16), torch.randn(1, 12, 16)
    batch = torch.full((2, 12, 16), 1e3)  # padding must have no effect
    batch[0, :7], batch[1] = short[0], long[0]
    padding = torch.zeros(2, 12, dtype=torch.bool)
    padding[0, 7:] = True
    together = model(batch, padding)
    torch.testing.assert_close(together[0, :7], model(short)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1], model(long)[0], atol=1e-5, rtol=1e-5)


def influence(model: Encoder, at: int, padding: Tensor | None = None) -> Tensor:
    """Which input tokens affect the output at one token, by gradient."""
    x = torch.randn(1, 10, 16, requires_grad=True)
    model(x, padding)[0, at].square().sum().backward()
    assert x.grad is not None
    return x.grad[0].abs().sum(dim=1) > 0


@pytest.mark.parametrize("padded", [False, True])
def test_causal_is_one_flag(padded: bool) -> None:
    padding = torch.zeros(1, 10, dtype=torch.bool) if padded else None
    seen = influence(encoder("bank", causal=True), 4, padding)
    assert seen.tolist() == [True] * 5 + [False] * 5
    assert influence(encoder("bank"), 4, padding).all()


def test_order_matters_only_with_positions() -> None:
    x = torch.randn(1, 9, 16)
    order = torch.randperm(9)
    plain = encoder(positions="none")
    torch.testing.assert_close(plain(x)[:, order], plain(x[:, order]), atol=1e-5, rtol=1e-5)
    for positions in ("rotary", "learned"):
        model = encoder(positions=positions)
        assert not torch.allclose(model(x)[:, order], model(x[:, order]), atol=1e-3)


def test_a_sequence_too_long_for_learned_positions_names_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"12 tokens .*max_tokens=8; .*rotary"):
        LearnedPositions(8, 4)(torch.zeros(1, 12, 4))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"heads": 3}, "heads=3 must divide"),
        ({"dropout": 1.0}, "dropout"),
        ({"positions": "sinus"}, "'sinus'"),
        ({"layers": 0}, "layers"),
        ({"dim": 6, "heads": 2}, "even head width"),
    ],
)
def test_bad_shapes_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        encoder(**settings)


def test_one_filter_per_layer() -> None:
    with pytest.raises(ConfigError, match="each of the 4 layers; got 1"):
        Encoder(EncoderConfig(dim=16), [nn.Identity()])


def test_a_filter_stands_where_it_is_placed() -> None:
    x = torch.randn(1, 9, 16)
    after, before = (encoder("bank", filter_place=place) for place in ("after", "attention"))
    assert not torch.allclose(after(x), before(x), atol=1e-4)
    layer, bank = before.layers[0], before.filters[0]
    read = bank(layer.attention_norm(x))
    y = x + layer.attention(read, None, rotary(9, 8))
    expected = y + layer.feed_forward(y)
    single = Encoder(EncoderConfig(dim=16, layers=1, heads=2, dropout=0.0,
                                   filter_place="attention"), [bank])  # fmt: skip
    single.layers[0] = layer
    torch.testing.assert_close(single.eval()(x), single.norm(expected), atol=1e-5, rtol=1e-5)


def test_chosen_layers_and_unknown_places_are_checked() -> None:
    config = EncoderConfig(layers=3, filter_layers=[0, 2])
    assert [config.has_filter(i) for i in range(3)] == [True, False, True]
    with pytest.raises(ConfigError, match="counts from 0 to 2; got 3"):
        EncoderConfig(layers=3, filter_layers=[0, 3])
    with pytest.raises(ConfigError, match="'middle'"):
        EncoderConfig(filter_place="middle")
