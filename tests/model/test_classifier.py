import pytest
import torch

from spaudio.errors import ConfigError
from spaudio.model.classifier import Classifier, count_parameters
from spaudio.model.encoder import EncoderConfig
from spaudio.model.pooling import POOLINGS, make_pooling, statistics
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.waveform_filterbank import WaveformFilterbank

SHAPE = EncoderConfig(dim=16, layers=2, heads=2)


@pytest.mark.parametrize("kind", POOLINGS)
def test_pooling_ignores_padding(kind: str) -> None:
    pooling, width = make_pooling(kind, 4)
    x = torch.randn(2, 6, 4)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[0, 3:] = True
    x[0, 3:] = float("inf")
    y = pooling(x, padding)
    assert y.shape == (2, width)
    torch.testing.assert_close(y[0], pooling(x[:1, :3])[0])
    torch.testing.assert_close(y[1], pooling(x[1:])[0])
    mean, std = x[1].mean(dim=0), x[1].std(dim=0, correction=0)
    if kind != "attention":
        torch.testing.assert_close(y[1], torch.cat([mean, std])[:width], atol=1e-4, rtol=1e-4)


def test_statistics_are_in_full_precision_under_autocast() -> None:
    x, padding = torch.randn(2, 60, 4) + 3, torch.arange(60) >= torch.tensor([[60], [41]])
    expected = statistics(x, padding)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(statistics(x, padding), expected)


def test_counts_filter_parameters() -> None:
    plain = Classifier(10, 3, SHAPE, {"name": "none"})
    bank = Classifier(10, 3, SHAPE, {"name": "bank", "num_filters": 4, "kernel_size": 3})
    own = sum(filter.num_parameters for filter in bank.token_filters().values())
    assert own == 2 * 4 * (3 + 1)  # two layers of M * (K + 1)
    assert count_parameters(bank) == count_parameters(plain) + own


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bank'"):
        Classifier(10, 3, SHAPE, {"name": "bonk"})
    with pytest.raises(ConfigError, match="num_filter"):
        Classifier(10, 3, SHAPE, {"name": "bank", "num_filter": 3})
    with pytest.raises(ConfigError, match="'max'"):
        make_pooling("max", 4)


def test_a_learned_front_end_is_trained_with_the_model() -> None:
    bank = WaveformConfig(num_filters=4, kernel=0.02)
    front_end = WaveformFilterbank(
        TokenConfig(sample_rate=1000, front_end="waveform", stack=2, waveform=bank)
    )
    options = {"name": "bank", "num_filters": 4, "kernel_size": 3}
    model = Classifier(8, 3, SHAPE, options, "attention", front_end).eval()
    samples = torch.randn(2, 7, 20)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    logits = model(samples, padding)
    torch.testing.assert_close(logits[1:], model(samples[1:, :4]))
    logits.logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with pytest.raises(ConfigError, match="tokens of 8 features; got 9"):
        Classifier(9, 3, SHAPE, {"name": "none"}, front_end=front_end)
