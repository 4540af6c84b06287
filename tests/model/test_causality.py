"""A later symbol changes no bit of an earlier logit, for every filter, position and backend."""

import pytest
import torch
from torch import Tensor

from spaudio.filters import filterbank
from spaudio.filters.fused import cpu
from spaudio.model.encoder import EncoderConfig
from spaudio.model.language import LanguageModel
from tests.filters.cases import CASES, spread
from tests.filters.causality import assert_causal

SYMBOLS = 27
# Widths that are no multiple of 8 or 16 lanes; lengths near the windows of 8 tokens of the backend
# "gemm", and more than one block of the native one.
SHAPES = [(20, 7), (44, 33)]
BANKS = sorted(name for name in CASES if name.startswith(("bank", "multiscale", "adaptive")))
PLAIN = sorted(set(CASES) - set(BANKS))
# Banks with each backend; the other filters have no backends.
CHOICES = [(c, b) for c in BANKS for b in ("cpu", "gemm")] + [(c, "gemm") for c in PLAIN]


@pytest.mark.parametrize(
    ("choice", "positions", "place"),
    spread(CHOICES, ["rotary", "learned", "none"], ["after", "attention"]),
)
def test_earlier_logits_keep_their_bits(
    choice: tuple[str, str], positions: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, backend = choice
    if backend == "cpu" and cpu.library() is None:
        pytest.skip("the native kernel was not built")
    monkeypatch.setenv("SPAUDIO_FILTER_BACKEND", backend)
    for dim, tokens in SHAPES:
        torch.manual_seed(0)
        shape = EncoderConfig(
            dim=dim, layers=2, heads=2, positions=positions, causal=True, filter_place=place
        )
        model = LanguageModel(SYMBOLS, shape, CASES[case]).eval()
        symbols = torch.randint(SYMBOLS, (3, tokens))
        with torch.inference_mode():
            assert_causal(model, symbols, lambda symbol: (symbol + 1) % SYMBOLS)


@pytest.mark.parametrize("backend", ["cpu", "gemm", "reference"])
def test_tiles_that_do_not_hold_a_whole_signal_keep_bits(backend: str) -> None:
    if backend == "cpu" and cpu.library() is None:
        pytest.skip("the native kernel was not built")
    torch.manual_seed(0)
    kernels, gains = torch.randn(36, 16), torch.randn(36)

    def run(x: Tensor) -> Tensor:
        return filterbank(x, kernels, gains, causal=True, backend=backend)

    assert_causal(run, torch.randn(2, 300, 64), lambda token: token * -3 + 1)


def test_the_guard_sees_a_leak() -> None:
    with pytest.raises(AssertionError, match="is seen before"):
        assert_causal(lambda x: x + x.roll(-1, 1), torch.randn(1, 9, 4), lambda token: token + 1)
