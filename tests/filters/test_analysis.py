"""Properties that a filter reports: response, receptive field, operations."""

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
from spaudio.filters.bandpass import bandpass_centres
from tests.filters.cases import DIM, build, spread


@pytest.mark.parametrize(
    ("case", "causal"), spread(["bank-even", "multiscale", "depthwise-odd", "haar"], [True, False])
)
def test_response_to_a_wave(case: str, causal: bool) -> None:
    """The response of each kernel to exp(2 pi j f t) is H(f) exp(2 pi j f t), with its phase."""
    filter = build(case, causal=causal, dtype=torch.float64)
    n_fft, at = 12, 20
    response = filter.frequency_response(n_fft).to(torch.complex128)
    rows = [row.detach().double() for kernel in filter.taps() for row in kernel]
    assert response.shape == (len(rows), n_fft // 2 + 1)
    frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64) / n_fft
    angle = 2 * math.pi * torch.outer(torch.arange(41, dtype=torch.float64), frequency)
    waves = torch.cat([angle.cos(), angle.sin()], dim=1).unsqueeze(0)  # one dimension per wave
    for row, expected in zip(rows, response, strict=True):
        y = filterbank(
            waves, row.unsqueeze(0), waves.new_ones(1), causal=causal, activation="identity"
        )
        answer = torch.complex(*y[0, at].chunk(2))
        wave = torch.polar(torch.ones_like(frequency), angle[at])
        torch.testing.assert_close(answer, expected * wave, atol=1e-6, rtol=0)


def test_response_may_have_fewer_frequencies_than_the_kernel_has_taps() -> None:
    bank = FilterBank(5, 16)
    torch.testing.assert_close(bank.frequency_response(8), bank.frequency_response(64)[:, ::8])
    for n_fft in (0, 7):  # without 1/2 cycle per token, which `centre_frequency` assumes
        with pytest.raises(ValueError, match=f"n_fft must be even and at least 2; got {n_fft}"):
            bank.frequency_response(n_fft)


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


@pytest.mark.parametrize(("count", "taps"), [(36, 16), (12, 64), (9, 2), (36, 4), (1, 5)])
def test_bandpass_kernels_respond_most_at_their_centres(count: int, taps: int) -> None:
    """To within the resolution of K taps, 1/K cycles per token."""
    bank = make_filter("multiscale", scales=[(count, taps), (2, 3)], init="bandpass")
    response = bank.frequency_response(1024).abs()[:count]
    centres = bandpass_centres(count, taps)
    assert centres[0] == 0
    assert centres[-1] == (0.5 if count > 1 else 0)
    assert ((response.argmax(1) / 1024 - centres).abs() < 1 / taps).all()
    assert bank.config()["init"] == "bandpass"
    for kernels in bank.taps():
        torch.testing.assert_close(kernels.square().sum(1), torch.full((len(kernels),), 1 / 3))
    with pytest.raises(ValueError, match="init must be one of"):
        FilterBank(2, 2, init="sinc")


def test_modulation_frequencies_are_in_hz() -> None:
    bank = FilterBank(3, 8)
    hertz, response = modulation_response(bank, token_seconds=0.01, n_fft=100)
    torch.testing.assert_close(hertz, torch.arange(51.0))
    assert torch.equal(response, bank.frequency_response(100))


def test_receptive_field_in_milliseconds() -> None:
    assert receptive_field_ms(FilterBank(3, 16, causal=True), 0.01) == pytest.approx((150, 0))
    assert receptive_field_ms(FilterBank(3, 16), 0.02) == pytest.approx((140, 160))
    adaptive = AdaptiveFilterBank(8, mask_width=8, mask_heads=1, causal=True)
    assert receptive_field_ms(adaptive, 0.02) == (math.inf, 0)
    for hop in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="token_seconds must be positive"):
            receptive_field_ms(adaptive, hop)


def test_description() -> None:
    bank = FilterBank(3, 4)
    assert describe(bank) == "bank: centred, 15 parameters, sees -1 ... +2 tokens"
    assert describe(bank, 0.01).endswith("sees -1 ... +2 tokens, -10 ... +20 ms")
    adaptive = AdaptiveFilterBank(8, mask_width=8, mask_heads=1, causal=True)
    assert "sees -all ... +0 tokens" in describe(adaptive)


@pytest.mark.parametrize(
    "case",
    ["bank-odd", "bank-per-dim", "multiscale", "fir-even", "fir-odd-per-dim", "depthwise-odd"],
)
def test_flops_are_counted(case: str) -> None:
    filter = build(case, causal=True)
    window = torch.randn(1, filter.extent[0] + 11, DIM)
    # Not the fused operator, which the counter does not know.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert filter.convolve(window).shape == (1, 11, DIM)
    assert filter.flops(11, DIM) == counter.get_total_flops()


def test_flops_of_a_mask_are_counted() -> None:
    filter = build("adaptive-multiscale", causal=False)
    assert isinstance(filter, AdaptiveFilterBank)
    # Attention by plain products, as the counter does not know the CPU's fused one.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        filter.mask(torch.randn(1, 11, DIM))
    assert filter.flops(11, DIM) - filter.bank.flops(11, DIM) == counter.get_total_flops()
    # As in the encoder, pairs of tokens that causality masks are not counted.
    masked = 11 * 10 // 2
    of_each_pair = 2 * 2 * filter.mask.width * len(filter.mask.layers)
    causal = build("adaptive-multiscale", causal=True)
    assert filter.flops(11, DIM) - causal.flops(11, DIM) == masked * of_each_pair


def test_flops_of_haar_and_none() -> None:
    # Dimensions 3, 4, 5 average 2, 4 and 8 tokens: 1, 2 and 3 additions, and two operations more.
    assert build("haar", causal=True).flops(10, DIM) == 10 * (1 + 2 + 3 + 3 * 2)
    assert build("none", causal=True).flops(10, DIM) == 0


def test_bandpass_kernels_have_phases_of_their_own() -> None:
    kernels = make_filter("bank", num_filters=36, kernel_size=5, init="bandpass").kernels.detach()
    assert not torch.allclose(kernels, kernels.flip(1), atol=1e-3)
    assert FilterBank(64, 1, init="bandpass").kernels.sign().unique().numel() == 2


def test_bandpass_kernels_can_be_on_another_than_the_default_device() -> None:
    with torch.device("meta"):
        assert FilterBank(5, 4, init="bandpass", device="cpu").kernels.isfinite().all()
        assert FilterBank(5, 4, init="bandpass").kernels.device.type == "meta"


def test_bandpass_kernels_fade_at_their_ends() -> None:
    power = FilterBank(36, 64, init="bandpass").kernels.detach()[1:].square().mean(0)
    assert power[:4].mean() < 0.1 * power[28:36].mean()


def test_frequencies_do_not_depend_on_the_default_dtype() -> None:
    expected, _ = modulation_response(FilterBank(2, 4), 0.04)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found, _ = modulation_response(FilterBank(2, 4), 0.04)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
