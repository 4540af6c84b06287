import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spaudio.report.calibration import (
    STEPS,
    calibration_error,
    confidences,
    count_above,
    measure_calibration,
    reliability,
)
from spaudio.training.temperature import fit_temperature, tempered


def drawn(temperature: float, several: bool) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from their probabilities at a temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(4000, 5, generator=generator, dtype=torch.float64)
    if several:
        return logits, torch.bernoulli((logits / temperature).sigmoid(), generator=generator)
    chances = (logits / temperature).softmax(dim=1)
    return logits, chances.multinomial(1, generator=generator).squeeze(1)


def test_few_clips_change_the_probabilities_little() -> None:
    """Four right answers do not show that 0.95 is too confident, nor that it is not enough."""
    right = torch.full((4, 4), 0.05 / 3).fill_diagonal_(0.95)
    assert 0.8 < fit_temperature(right, torch.arange(4)) < 1.1
    assert 1 < fit_temperature(right, torch.tensor([0, 1, 2, 0])) < 1.6
    many = right.repeat(250, 1)
    assert fit_temperature(many, torch.arange(4).repeat(250)) < 0.6
    assert fit_temperature(many, torch.tensor([0, 1, 2, 0]).repeat(250)) > 1.7


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_of_the_labels_is_found(temperature: float, several: bool) -> None:
    logits, labels = drawn(temperature, several)
    chances = logits.sigmoid() if several else logits.softmax(dim=1)
    found = fit_temperature(chances.float(), labels)
    assert found == pytest.approx(temperature, rel=0.05)
    scaled = tempered(chances, found, several)
    expected = (logits / found).sigmoid() if several else (logits / found).softmax(dim=1)
    torch.testing.assert_close(scaled, expected, atol=1e-6, rtol=1e-4)
    assert torch.equal(tempered(chances, 1.0, several), chances)
    facts = measure_calibration(chances, scaled, labels, found)
    assert facts["after"]["ece"] < 0.02 < facts["before"]["ece"]
    cross_entropy = F.binary_cross_entropy_with_logits if several else F.cross_entropy
    for stage, divided in (("before", logits), ("after", logits / found)):
        expected_loss = cross_entropy(divided, labels).item()
        assert facts[stage]["loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert facts["after"]["loss"] < facts["before"]["loss"]


def test_several_labels_that_are_almost_certain_keep_their_logits() -> None:
    logits = torch.tensor([[18.0, -18.0, 25.0]], dtype=torch.float64)
    torch.testing.assert_close(tempered(logits.sigmoid(), 3.0, True), (logits / 3).sigmoid())


def test_a_split_without_an_error_gives_no_certainty() -> None:
    chances = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    found = tempered(chances, fit_temperature(chances, torch.tensor([0, 1])), False)
    assert 0.7 < found.max() < 0.95
    several = torch.eye(2)
    found = tempered(chances, fit_temperature(chances, several), True)
    assert 0.7 < found.max() < 0.95


def test_a_probability_of_zero_is_taken_for_the_least_of_float32() -> None:
    chances, labels = torch.tensor([[0.8, 0.2], [0.3, 0.7], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    least = chances.clamp_min(torch.finfo(torch.float32).tiny)
    assert fit_temperature(chances, labels) == pytest.approx(fit_temperature(least, labels))
    assert tempered(chances, 20.0, False)[2, 1] > 0.01


def test_the_calibration_error_by_hand() -> None:
    """Two bins: four of mean 0.95 of which three are right, one of 0.55 which is wrong."""
    sure = torch.tensor([0.94, 0.96, 0.95, 0.95, 0.55])
    probabilities = torch.stack([sure, 1 - sure], dim=1)
    bins = reliability(*confidences(probabilities, torch.tensor([0, 0, 1, 0, 1])))
    assert [b["count"] for b in bins] == [1, 4]
    assert [b["accuracy"] for b in bins] == [0, 0.75]
    assert calibration_error(bins) == pytest.approx((4 * 0.2 + 0.55) / 5)
    assert reliability(*confidences(torch.ones(1, 1), torch.tensor([0])))[0]["high"] == 1


def test_a_bin_holds_its_upper_edge_and_not_its_lower_one() -> None:
    confidence = np.array([0.0, 3 / 15, 3 / 15 + 1e-9, 1.0])
    bins = reliability(confidence, np.ones(4))
    edges = [(b["low"], b["high"]) for b in bins]
    assert edges == [(0, 1 / 15), (2 / 15, 3 / 15), (3 / 15, 4 / 15), (14 / 15, 1)]


def test_counts_above_thresholds() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(200, generator=generator, dtype=torch.float64)
    chances[0] = 0.5  # exactly a threshold
    right = torch.bernoulli(chances, generator=generator)
    above, hits = count_above(chances.numpy(), right.numpy())
    for step in range(STEPS):
        kept = chances >= step / STEPS
        assert (above[step], hits[step]) == (int(kept.sum()), int(right[kept].sum()))
