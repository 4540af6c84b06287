"""A language model: shapes, parameters, and that it must be causal."""

import pytest
import torch

from spaudio.errors import ConfigError
from spaudio.filters import TokenFilter
from spaudio.model.encoder import EncoderConfig
from spaudio.model.language import LanguageModel


def test_logits_of_each_next_symbol() -> None:
    shape = EncoderConfig(dim=16, layers=2, heads=2, causal=True)
    model = LanguageModel(27, shape, {"name": "bank", "num_filters": 3, "kernel_size": 4})
    assert model(torch.randint(27, (2, 9))).shape == (2, 9, 27)
    assert all(isinstance(f, TokenFilter) and f.causal for f in model.encoder.filters)

    with pytest.raises(ConfigError, match="causal"):
        LanguageModel(27, EncoderConfig(dim=16, layers=1, heads=2), {"name": "none"})


@pytest.mark.parametrize("name", ["bank", "adaptive", "depthwise"])
def test_the_filter_does_not_change_how_all_else_begins(name: str) -> None:
    shape = EncoderConfig(dim=16, layers=2, heads=2, causal=True)
    states = []
    for options in ({"name": "none"}, {"name": name}):
        torch.manual_seed(0)
        states.append(LanguageModel(27, shape, options).state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
