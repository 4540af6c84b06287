from __future__ import annotations

import pytest

from spaudio.experiment.advice import kernel_advice, rate_advice
from spaudio.filters import FilterBank, NoFilter


def test_clips_of_too_low_a_rate_are_counted_with_the_remedy() -> None:
    said = rate_advice([8000, 44100, 11025], 16000, None)
    assert said is not None
    assert "2 of 3 clips" in said
    assert "lowest rate 8000 Hz" in said
    assert "tokens.f_max=4000, or tokens.sample_rate=8000" in said
    assert "may tell them apart" in said
    assert "tell them apart" not in str(rate_advice([8000, 8000], 16000, None))


@pytest.mark.parametrize(
    ("sample_rate", "f_max"), [(8000, None), (16000, 4000.0), (8000, 4000.0), (1000, None)]
)
def test_clips_of_a_rate_that_suffices_are_not_warned_of(
    sample_rate: int, f_max: float | None
) -> None:
    assert rate_advice([8000, 44100], sample_rate, f_max) is None


@pytest.mark.parametrize(("kernel_size", "causal"), [(9, True), (17, False), (16, False)])
def test_a_kernel_longer_than_every_clip_is_named(kernel_size: int, causal: bool) -> None:
    filters = [NoFilter(), FilterBank(2, kernel_size, causal=causal)]
    said = kernel_advice(filters, 8)
    assert said is not None
    assert "filter=bank reach 8 tokens" in said
    assert "longest clip has 8" in said
    assert "tokens.hop" in said
    assert kernel_advice(filters, 9) is None


def test_a_model_without_filters_is_not_warned_of() -> None:
    assert kernel_advice([], 1) is None
    assert kernel_advice([NoFilter()], 1) is None
