"""A streamed encoder equals the full pass."""

import pytest
import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters import NoFilter, make_filter
from spaudio.model.encoder import Encoder, EncoderConfig, make_filters
from spaudio.model.stream import EncoderStream
from tests.filters.cases import CASES, spread

TOKENS = 17
# Products of other shapes sum in another order. The docstring of EncoderStream states these.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def encoder(case: str = "bank-even", **settings: object) -> Encoder:
    torch.manual_seed(0)
    shape = {"dim": 12, "layers": 2, "heads": 2, "max_tokens": TOKENS, "causal": True, **settings}
    config = EncoderConfig(**shape)  # type: ignore[arg-type]
    return Encoder(config, make_filters(config, CASES[case])).eval()


def in_pieces(stream: EncoderStream, x: Tensor, pieces: list[int]) -> Tensor:
    return torch.cat([stream.step(piece) for piece in torch.split(x, pieces, dim=1)], dim=1)


@pytest.mark.parametrize(
    ("case", "positions", "place"),
    spread(CASES, ["rotary", "learned", "none"], ["after", "attention"]),
)
@torch.no_grad()
def test_pieces_of_any_size_equal_the_full_pass(case: str, positions: str, place: str) -> None:
    for dtype, tolerance in TOLERANCE.items():
        model = encoder(case, positions=positions, filter_place=place).to(dtype)
        x = torch.randn(3, TOKENS, 12, dtype=dtype)
        whole, stream = model(x), EncoderStream(model)
        for pieces in ([1] * TOKENS, [5, 1, 1, 7, 3], [1, 16], [TOKENS]):
            y = in_pieces(stream, x, pieces)
            torch.testing.assert_close(y, whole, rtol=tolerance, atol=tolerance)
            assert stream.tokens == TOKENS
            stream.reset()


@torch.no_grad()
def test_rotary_positions_go_on_and_learned_ones_end() -> None:
    x = torch.randn(1, 3 * TOKENS, 12)
    model = encoder()
    y = in_pieces(EncoderStream(model), x, [TOKENS] * 3)
    torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)
    stream = EncoderStream(encoder(positions="learned"))
    first = stream.step(x[:, :TOKENS])
    with pytest.raises(ConfigError, match=r"18 tokens .*max_tokens=17; .*rotary"):
        stream.step(x[:, TOKENS : TOKENS + 1])
    stream.reset()
    assert torch.equal(stream.step(x[:, :TOKENS]), first)


@torch.no_grad()
def test_streams_are_independent() -> None:
    model = encoder("adaptive", filter_layers=[1])
    x = torch.randn(2, 9, 12)
    first, second = EncoderStream(model), EncoderStream(model)
    both = [
        torch.cat([first.step(x[:1, t : t + 1]), second.step(x[1:, t : t + 1])]) for t in range(9)
    ]
    torch.testing.assert_close(torch.cat(both, dim=1), model(x), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_streamed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.causal=false"):
        EncoderStream(encoder(causal=False))
    with pytest.raises(ConfigError, match=r"training mode.*eval\(\)"):
        EncoderStream(encoder(dropout=0.1).train())
    config = EncoderConfig(dim=12, layers=1, heads=2, causal=True)
    replaced = Encoder(config, [NoFilter()]).eval()
    replaced.filters[0] = make_filter("bank")
    with pytest.raises(ConfigError, match="'bank' is not causal"):
        EncoderStream(replaced)
    with pytest.raises(ConfigError, match="Identity"):
        EncoderStream(Encoder(config, [nn.Identity()]).eval())
    stream = EncoderStream(encoder("none"))
    stream.step(torch.randn(2, 3, 12))
    with pytest.raises(ValueError, match=r"\(4, 1, 12\) do not continue a stream of batch 2"):
        stream.step(torch.randn(4, 1, 12))
