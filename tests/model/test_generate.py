"""Generation: the cache changes nothing, and draws follow the logits."""

import pytest
import torch

from spaudio.errors import ConfigError
from spaudio.model.encoder import EncoderConfig
from spaudio.model.generate import draw, generate, window_start
from spaudio.model.language import LanguageModel
from tests.filters.cases import CASES, spread

PROMPT = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def model(case: str = "bank-even", **settings: object) -> LanguageModel:
    torch.manual_seed(0)
    shape = {"dim": 12, "layers": 2, "heads": 2, "max_tokens": 10, "causal": True, **settings}
    made = LanguageModel(27, EncoderConfig(**shape), CASES[case])  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4)  # or an untrained model would repeat one symbol
    return made


@pytest.mark.parametrize(
    ("case", "positions", "place"),
    spread(
        ["none", "multiscale", "adaptive", "haar", "depthwise-even"],
        ["rotary", "learned"],
        ["after", "attention"],
    ),
)
def test_greedy_with_cache_equals_greedy_without(case: str, positions: str, place: str) -> None:
    made = model(case, positions=positions, filter_place=place)
    # Three contexts long, so that the window moves several times.
    with_cache, without = (
        generate(made, PROMPT, 30, temperature=0, cached=cached) for cached in (True, False)
    )
    assert torch.equal(with_cache, without)
    assert len(with_cache.unique()) > 3


def test_a_seed_fixes_the_draws_and_the_model_keeps_its_mode() -> None:
    made = model(dropout=0.5).train()
    first, again, other = (
        generate(made, PROMPT, 25, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert made.training


def test_the_window_is_never_longer_than_the_context_nor_shorter_than_half() -> None:
    for context in (1, 2, 7, 10):
        for tokens in range(1, 60):
            start = window_start(tokens, context)
            kept = tokens - start
            assert kept <= context
            assert start == 0 or kept > context - max(1, context // 2)
            assert start >= window_start(tokens - 1, context)


def test_draws_follow_temperature_and_top_k() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(20_000, -1)
    generator = torch.Generator().manual_seed(0)
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 2)):
        drawn = draw(logits, temperature, top_k, generator)
        share = torch.bincount(drawn, minlength=4) / len(drawn)
        kept = top_k or 4
        expected = torch.zeros(4)
        expected[:kept] = torch.softmax(logits[0, :kept] / temperature, dim=0)
        torch.testing.assert_close(share, expected, atol=0.015, rtol=0)  # four deviations
    tied = torch.zeros(500, 6)
    assert len(draw(tied, 1.0, 3, generator).unique()) == 3
    assert draw(logits[:9], 1e-300, None, generator).tolist() == [0] * 9
    assert draw(logits[:9], 0, None, None).tolist() == [0] * 9


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"prompt": PROMPT[:, :0]}, "prompt is empty"),
        ({"length": 0}, "length must be at least 1; got 0"),
        ({"temperature": -1.0}, "temperature .*got -1.0"),
        ({"temperature": float("nan")}, "temperature .*got nan"),
        ({"top_k": 28}, "top_k must be from 1 to 27.*got 28"),
        ({"context": 11}, "context must be from 1 to model.max_tokens=10; got 11"),
    ],
)
def test_numbers_out_of_range_are_named(changed: dict[str, object], named: str) -> None:
    arguments = {"prompt": PROMPT, "length": 3, **changed}
    with pytest.raises(ConfigError, match=named):
        generate(model(positions="learned"), **arguments)  # type: ignore[arg-type]
