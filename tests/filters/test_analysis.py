"""What a filter says of itself: response, receptive field, operations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spaudio.filters import (
    AdaptiveFilterBank,
    FilterBank,
    centre_frequency,
    describe,
    filterbank,
    make_filter,
    modulation_response,
    receptive_field_ms,
)
from spaudio.filters.definition import filterbank_definition
from tests.filters.cases import CASES, DIM, build


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("causal", [True, False])
def test_response_is_what_a_wave_meets(case: str, causal: bool) -> None:
    """Each kernel answers exp(2 pi j f t) by H(f) exp(2 pi j f t), phase included."""
    filter = build(case, causal=causal, dtype=torch.float64)
    n_fft = 12
    response = filter.frequency_response(n_fft)
    kernels = [k.detach().double() for k in filter.taps()]
    assert response.shape == (sum(len(k) for k in kernels), n_fft // 2 + 1)
    time = torch.arange(41, dtype=torch.float64)
    for bin in range(n_fft // 2 + 1):
        angle = 2 * math.pi * bin / n_fft * time
        for part, wave in (("real", angle.cos()), ("imag", angle.sin())):
            row = 0
            for kernel in kernels:
                for taps in kernel:
                    y = filterbank(
                        wave.reshape(1, -1, 1),
                        taps.unsqueeze(0),
                        torch.ones(1, dtype=torch.float64),
                        causal=causal,
                        activation="identity",
                    )
                    answer = response[row, bin].to(torch.complex128) * torch.polar(
                        torch.tensor(1.0, dtype=torch.float64), angle[20]
                    )
                    assert y[0, 20, 0].item() == pytest.approx(
                        getattr(answer, part).item(), abs=1e-6
                    )
                    row += 1


def test_response_equals_fft_of_the_impulse_response() -> None:
    bank = FilterBank(5, 7, causal=True)
    # Conv1d correlates, so the impulse response is the taps in reverse.
    reference = torch.fft.rfft(bank.kernels.detach().flip(-1), 64)
    torch.testing.assert_close(bank.frequency_response(64), reference)


def test_response_may_be_sampled_more_coarsely_than_the_kernel() -> None:
    bank = FilterBank(5, 16)
    torch.testing.assert_close(bank.frequency_response(8), bank.frequency_response(64)[:, ::8])
    with pytest.raises(ValueError, match="n_fft must be at least 1; got 0"):
        bank.frequency_response(0)


def test_response_of_half_precision_is_complex() -> None:
    assert FilterBank(5, 16, dtype=torch.bfloat16).frequency_response().dtype == torch.complex64


def test_haar_is_a_low_pass_with_zeros_where_averages_cancel() -> None:
    magnitude = make_filter("haar", 8, levels=2).frequency_response(8).abs()
    torch.testing.assert_close(magnitude[:, 0], torch.ones(2))
    assert magnitude[0, 4] < 1e-6  # two tokens cancel at 1/2 cycle/token
    assert magnitude[1, 2] < 1e-6  # four at 1/4
    assert magnitude[1, 4] < 1e-6


def test_centre_frequency_finds_a_tuned_kernel() -> None:
    time = torch.arange(64.0)
    frequencies = torch.tensor([0.05, 0.2, 0.4])
    bank = FilterBank(4, 64)
    with torch.no_grad():
        window = torch.hann_window(64)
        bank.kernels[:3] = torch.cos(2 * math.pi * frequencies.unsqueeze(1) * time) * window
        bank.kernels[3] = 0
    centres = centre_frequency(bank.frequency_response(512))
    torch.testing.assert_close(centres[:3], frequencies, atol=0.01, rtol=0)
    assert centres[3] == 0


def test_modulation_frequencies_are_in_hz() -> None:
    bank = FilterBank(3, 8)
    hertz, response = modulation_response(bank, hop_seconds=0.01, n_fft=100)
    torch.testing.assert_close(hertz, torch.arange(51.0))
    assert torch.equal(response, bank.frequency_response(100))


def test_receptive_field_in_milliseconds() -> None:
    assert receptive_field_ms(FilterBank(3, 16, causal=True), 0.01) == pytest.approx((150, 0))
    assert receptive_field_ms(FilterBank(3, 16), 0.02) == pytest.approx((140, 160))
    adaptive = AdaptiveFilterBank(8, width=8, heads=1, causal=True)
    assert receptive_field_ms(adaptive, 0.02) == (math.inf, 0)


@pytest.mark.parametrize("hop", [0.0, -1.0, math.nan, math.inf])
def test_hop_must_be_positive(hop: float) -> None:
    with pytest.raises(ValueError, match="hop_seconds must be positive"):
        receptive_field_ms(FilterBank(3, 16), hop)


def test_description_reads_well() -> None:
    bank = FilterBank(3, 4)
    assert describe(bank) == "bank: non-causal, 15 parameters, sees -1 ... +2 tokens"
    assert describe(bank, 0.01).endswith("sees -1 ... +2 tokens, -10 ... +20 ms")
    adaptive = AdaptiveFilterBank(8, width=8, heads=1, causal=True)
    assert "sees -all ... +0 tokens" in describe(adaptive)


@pytest.mark.parametrize("case", ["bank-odd", "bank-per-dim", "multiscale"])
def test_flops_of_a_bank_are_those_of_its_definition(case: str) -> None:
    filter = build(case, causal=True)
    with FlopCounterMode(display=False) as counter:
        filterbank_definition(
            torch.randn(1, 11, DIM),
            list(filter.taps()),
            filter.state_dict()["gains"],
            causal=True,
            padding_mask=None,
            activation="relu",
        )
    gains = filter.state_dict()["gains"]
    # The counter knows products of matrices alone, not the weighing by gains of a dimension.
    weighing = 2 * 11 * gains.numel() if gains.dim() == 2 else 0
    assert filter.flops(11, DIM) == counter.get_total_flops() + weighing


@pytest.mark.parametrize("case", ["fir-even", "fir-odd-per-dim", "depthwise-odd"])
def test_flops_of_a_linear_filter_are_counted(case: str) -> None:
    filter = build(case, causal=True)
    window = torch.randn(1, filter.extent[0] + 11, DIM)
    # The padded form, as the counter does not know the fused operator.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert filter.valid(window).shape == (1, 11, DIM)
    assert filter.flops(11, DIM) == counter.get_total_flops()


def test_flops_of_a_mask_are_counted() -> None:
    filter = build("adaptive-multiscale", causal=False)
    assert isinstance(filter, AdaptiveFilterBank)
    # Attention by plain products, as the counter does not know the CPU's fused one.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        filter.mask(torch.randn(1, 11, DIM))
    assert filter.flops(11, DIM) - filter.bank.flops(11, DIM) == counter.get_total_flops()


def test_flops_of_haar_and_none() -> None:
    # Dimensions 3, 4, 5 average 2, 4 and 8 tokens: 1, 2 and 3 additions, and two operations more.
    assert build("haar", causal=True).flops(10, DIM) == 10 * (1 + 2 + 3 + 3 * 2)
    assert build("none", causal=True).flops(10, DIM) == 0
