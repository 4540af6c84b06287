from typing import Any

import pytest
from torch import nn

from spaudio.errors import ConfigError
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.waveform_filterbank import WaveformFilterbank
from spaudio.training.optim import make_optimizer, schedule
from spaudio.training.trainer_config import OptimConfig, TrainerConfig


def test_decay_is_for_matrices_outside_filters() -> None:
    model = Classifier(
        10, 3, EncoderConfig(dim=16, layers=2, heads=2), {"name": "bank", "num_filters": 4}
    )
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, plain = (
        [names[id(p)] for p in group["params"]]
        for group in make_optimizer(model, OptimConfig()).param_groups
    )
    assert len(decayed) + len(plain) == len(names)
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert {n for n in names.values() if ".kernels" in n or ".gains" in n} <= set(plain)
    assert all(not n.startswith("encoder.filters.") for n in decayed)
    config = OptimConfig(weight_decay=0.3, beta1=0.8, beta2=0.95)
    groups = make_optimizer(model, config).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {group["betas"] for group in groups} == {(0.8, 0.95)}
    # Filters inserted into a pretrained encoder are named differently.
    inserted = nn.ModuleDict({"layer": nn.ModuleDict({"token_filter": model.encoder.filters[0]})})
    assert not make_optimizer(inserted, OptimConfig()).param_groups[0]["params"]
    # Nor is a learned front-end decayed.
    bank = WaveformConfig(num_filters=3, kernel=0.02)
    learned = WaveformFilterbank(TokenConfig(1000, "waveform", waveform=bank))
    whole = nn.ModuleDict({"front_end": learned})
    assert not make_optimizer(whole, OptimConfig()).param_groups[0]["params"]


def test_a_part_learns_at_its_share_of_the_rate() -> None:
    model = nn.ModuleDict({"head": nn.Linear(3, 2), "base": nn.Linear(3, 3)})
    model.lr_scales = {"head": 0.1}  # type: ignore[assignment]
    groups = make_optimizer(model, OptimConfig()).param_groups
    shares = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, share in (("head", 0.1), ("base", 1.0)):
        assert {shares[id(p)] for p in model[name].parameters()} == {share}


def test_schedule_rises_linearly_and_falls_as_a_cosine() -> None:
    config = OptimConfig(lr=2.0, warmup=0.1, final=0.05)
    rates = [schedule(step, 1000, config) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / 100)
    assert rates[99] == pytest.approx(2.0)
    assert rates[49] == pytest.approx(1.0)
    assert rates[550] == pytest.approx(2.0 * (0.05 + 0.95 * 0.5), rel=1e-3)
    # The documented end is one step after the last.
    assert schedule(1000, 1000, config) == pytest.approx(0.1, rel=1e-12)
    assert rates[-1] - 0.1 == pytest.approx(2.0 * 2.5 / 900**2, rel=0.1)
    assert max(rates) == pytest.approx(2.0)
    assert schedule(0, 1, config) == pytest.approx(2.0)  # one step in all


@pytest.mark.parametrize(
    ("config", "named", "value"),
    [
        (OptimConfig, "optim.lr", 0.0),
        (OptimConfig, "optim.warmup", 1.0),
        (OptimConfig, "optim.weight_decay", -1.0),
        (TrainerConfig, "trainer.epochs", 0),
        (TrainerConfig, "trainer.device", "cuda:1"),
        (TrainerConfig, "trainer.precision", "fp8"),
        (TrainerConfig, "trainer.label_smoothing", 1.0),
        (TrainerConfig, "trainer.workers", -1),
    ],
)
def test_values_out_of_range_are_named(config: Any, named: str, value: object) -> None:
    with pytest.raises(ConfigError, match=named):
        config(**{named.partition(".")[2]: value})
