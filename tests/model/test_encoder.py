from functools import partial

import pytest
import torch
from torch import nn

from spaudio.errors import ConfigError
from spaudio.filters import make_filter
from spaudio.filters.dropout import Dropout
from spaudio.filters.transformer import KeyValueCache, SelfAttention, attention, rotary
from spaudio.model.encoder import Encoder, EncoderConfig, _skip


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
    parts = {
        "self_attn.in_proj_": layer.attention.qkv,
        "self_attn.out_proj.": layer.attention.out,
        "norm1.": layer.attention_norm,
        "norm2.": layer.feed_forward[0],
        "linear1.": layer.feed_forward[1],
        "linear2.": layer.feed_forward[3],
    }
    theirs.load_state_dict(
        {
            name + kind: getattr(part, kind)
            for name, part in parts.items()
            for kind in ("weight", "bias")
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


@pytest.mark.parametrize("place", ["after", "attention"])
@pytest.mark.parametrize("half", [False, True])
def test_training_computes_little_of_the_padding(place: str, half: bool) -> None:
    model = encoder("bank", filter_place=place)
    x = torch.randn(4, 60, 16)
    rows: list[torch.Size] = []
    for layer in model.layers:
        layer.feed_forward.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape))

    def gradients(lengths: list[int], training: bool) -> list[torch.Tensor]:
        padding = torch.arange(60) >= torch.tensor(lengths).unsqueeze(1)
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = model.train(training)(given, padding)[~padding]
        return [y, *torch.autograd.grad(y.sin().sum(), [given, *model.parameters()])]

    for lengths, computed in (([60, 5, 0, 17], (128, 16)), ([60, 60, 59, 57], (4, 60, 16))):
        rows.clear()
        found, expected = (gradients(lengths, training) for training in (True, False))
        assert rows == [computed] * 2 + [(4, 60, 16)] * 2
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=0.1 if half else 1e-5, rtol=0.1 if half else 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [True, False])
def test_tokens_that_attend_to_nothing_spoil_no_others(causal: bool, dtype: torch.dtype) -> None:
    """Padding before a clip hides all keys of a causal query; a clip may be padding alone."""
    model = encoder("bank", dropout=0.1, causal=causal).to(dtype).train()
    x = torch.randn(3, 9, 16, dtype=dtype, requires_grad=True)
    padding = torch.zeros(3, 9, dtype=torch.bool)
    padding[1, :3] = padding[2] = True
    model(x, padding)[~padding].square().sum().backward()
    for value in (x, *model.parameters()):
        assert value.grad is None or value.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_skipped_layers_keep_the_type(dtype: torch.dtype) -> None:
    model = encoder(drop_path=0.5).to(dtype).train()
    assert model(torch.randn(2, 9, 16, dtype=dtype)).dtype == dtype


def test_order_matters_only_with_positions() -> None:
    x = torch.randn(1, 9, 16)
    order = torch.randperm(9)
    plain = encoder(positions="none")
    torch.testing.assert_close(plain(x)[:, order], plain(x[:, order]), atol=1e-5, rtol=1e-5)
    for positions in ("rotary", "learned"):
        model = encoder(positions=positions)
        assert not torch.allclose(model(x)[:, order], model(x[:, order]), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"heads": 3}, "heads=3 must divide"),
        ({"dropout": 1.0}, "dropout"),
        ({"positions": "sinus"}, "'sinus'"),
        ({"layers": 0}, "layers"),
        ({"dim": 6, "heads": 2}, "even head width"),
        ({"filter_layers": [0, 2]}, "counts from 0 to 1; got 2"),
        ({"filter_layers": []}, "filter_layers is empty; give filter=none"),
        ({"filter_place": "middle"}, "'middle'"),
    ],
)
def test_bad_shapes_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        encoder(**settings)
    with pytest.raises(ConfigError, match="each of the 4 layers; got 1"):
        Encoder(EncoderConfig(dim=16), [nn.Identity()])
    centred = EncoderConfig(dim=16, layers=1, heads=2, causal=True)
    with pytest.raises(ConfigError, match=r"'bank' sees future tokens.*causal=True"):
        Encoder(centred, [make_filter("bank")])


def test_a_filter_stands_where_it_is_placed() -> None:
    x = torch.randn(1, 9, 16)
    before = encoder("bank", layers=1, filter_place="attention")
    layer, bank = before.layers[0], before.filters[0]
    y = x + layer.attention(bank(layer.attention_norm(x)), None, rotary(9, 8))
    expected = before.norm(y + layer.feed_forward(y))
    torch.testing.assert_close(before(x), expected, atol=1e-5, rtol=1e-5)
    after = encoder("bank", layers=1)
    expected = after.norm(after.filters[0](after.layers[0](x, None, rotary(9, 8))))
    torch.testing.assert_close(after(x), expected, atol=1e-5, rtol=1e-5)


def test_skipped_layers_keep_the_mean() -> None:
    torch.manual_seed(0)
    x, y = torch.zeros(20_000, 1, 1), torch.ones(20_000, 1, 1)
    found = _skip(x, y, 0.4)
    assert found.mean().item() == pytest.approx(1, abs=0.03)
    assert (found == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)


class Marks(nn.Module):
    """A layer that adds one to a feature."""

    def __init__(self, feature: int) -> None:
        super().__init__()
        self.feature = feature

    def forward(self, x: torch.Tensor, *others: object) -> torch.Tensor:
        return x + torch.eye(x.shape[2])[self.feature]


def test_later_layers_are_skipped_more_often() -> None:
    deep = encoder(layers=4, drop_path=0.4).train()
    deep.layers, deep.norm = nn.ModuleList(map(Marks, range(4))), nn.Identity()
    skipped = (deep(torch.zeros(20_000, 1, 16))[:, 0, :4] == 0).float().mean(dim=0)
    assert skipped.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)


def test_dropout_reaches_the_input_and_every_layer() -> None:
    one = encoder(dropout=0.3).train()
    parts = [part.p for part in one.modules() if isinstance(part, Dropout)]
    assert len(parts) == 1 + len(one.layers)
    assert {*parts, *(layer.attention.dropout for layer in one.layers)} == {0.3}
    one.layers, one.filters, one.norm = nn.ModuleList(), nn.ModuleList(), nn.Identity()
    dropped = one(torch.ones(1, 1000, 16)) == 0
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_causal_attention_sees_the_earlier_tokens(dtype: torch.dtype) -> None:
    layer = SelfAttention(16, 2, causal=True).to(dtype).eval()
    x, rotation = torch.randn(2, 11, 16).to(dtype), rotary(11, 8)
    whole, cache, parts, start = layer(x, None, rotation), KeyValueCache(1), [], 0
    with torch.device("meta"):  # masks are made on the device of the tokens
        for piece in x.split([4, 3, 1, 3], dim=1):
            span = slice(start, start + piece.shape[1])
            turned = (rotation[0][span], rotation[1][span])
            parts.append(layer(piece, None, turned, partial(cache.extend, 0)))
            start = span.stop
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=tolerance, atol=tolerance)


def test_attention_weights_are_dropped_in_training() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(16, 2, dropout=0.5).train(), torch.randn(1, 9, 16)
    assert not torch.equal(layer(x, None, None), layer(x, None, None))
    layer.eval()
    assert torch.equal(layer(x, None, None), layer(x, None, None))


def test_padding_at_the_end_of_a_causal_model_needs_no_mask() -> None:
    model, x = encoder(causal=True), torch.randn(2, 6, 16)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    assert model._attend(x, padding) is None
    torch.testing.assert_close(model(x, padding)[1, :4], model(x[1:, :4])[0])
    padding[1, 0] = True
    attend = model._attend(x, padding)
    assert attend is not None
    assert attend.shape == (2, 1, 6, 6)
    padding[1] = torch.tensor([False, True, False, False, False, False])  # in the middle
    assert model._attend(x, padding) is not None


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_half_precision_is_that_of_torch(scale: float | None, causal: bool) -> None:
    """On CPUs, it is computed without torch's fused kernel."""
    q, k, v = 2 * torch.randn(3, 2, 2, 9, 8)
    attend = None if causal else torch.rand(2, 2, 9, 9) < 0.7
    expected = nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=attend, is_causal=causal, scale=scale
    )
    half = [part.bfloat16() for part in (q, k, v)]
    found = attention(*half, attend, causal=causal, scale=scale)
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.05)
