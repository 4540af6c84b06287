"""Counted operations, against torch's own counter of matrix products."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spaudio.model.encoder import EncoderConfig
from spaudio.model.flops import encoder_flops, step_flops
from spaudio.model.language import LanguageModel


def make(**options: object) -> LanguageModel:
    shape = EncoderConfig(dim=16, layers=2, heads=2, ff_mult=3, causal=True)
    return LanguageModel(27, shape, {"name": "none", **options})


def test_counts_what_torch_counts_but_half_of_attention() -> None:
    model, tokens, batch = make(), 12, 3
    symbols = torch.randint(27, (batch, tokens))
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model(symbols).sum().backward()
    whole_attention = 2 * 2 * 2 * tokens * tokens * 16  # of both layers, masked pairs included
    masked = 2 * 2 * 2 * (tokens * (tokens - 1) // 2) * 16
    counted = step_flops(model.encoder, tokens, batch, head=27)
    assert whole_attention > 2 * masked
    assert counter.get_total_flops() == counted + 3 * batch * masked


@pytest.mark.parametrize("name", ["bank", "depthwise", "adaptive"])
def test_filters_add_what_they_say(name: str) -> None:
    model, bare = make(name=name), make()
    added = sum(f.flops(12, 16) for f in model.token_filters().values())
    assert added > 0
    assert encoder_flops(model.encoder, 12) == encoder_flops(bare.encoder, 12) + added
