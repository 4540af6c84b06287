"""The registry, the factory and the arguments of the classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spaudio.filters import FILTERS, FilterBank, FIRFilter, HaarFilter, TokenFilter, make_filter
from tests.filters.cases import spread


def test_a_filter_registers_itself_where_it_is_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILTERS, "twice", TokenFilter)  # removed at the end
    del FILTERS["twice"]

    def define(name: str, title: str = "Twice") -> type[TokenFilter]:
        body = {"name": name, "filtered": lambda self, x, padding_mask=None: x, "config": dict}
        return type(title, (TokenFilter,), body)

    define("twice")
    x = torch.randn(2, 4, 3)
    assert torch.equal(make_filter("twice")(x), 2 * x)
    again = define("twice")  # as in a notebook
    assert FILTERS["twice"] is again
    with pytest.raises(ValueError, match=r"'bank' is that of .*FilterBank"):
        define("bank", "Other")
    unnamed = type("Unnamed", (FilterBank,), {})
    assert unnamed not in FILTERS.values()


@pytest.mark.parametrize(("name", "causal"), spread(FILTERS, [True, False]))
def test_defaults_build_and_run(name: str, causal: bool) -> None:
    filter = make_filter(name, 10, causal=causal)
    assert type(filter) is FILTERS[name]
    assert filter.name == name
    assert filter.causal is causal
    assert filter(torch.randn(2, 40, 10)).shape == (2, 40, 10)


def test_default_bank_has_the_papers_size() -> None:
    assert make_filter("bank").num_parameters == 144 * (16 + 1)
    assert make_filter("fir").num_parameters == make_filter("bank").num_parameters
    assert make_filter("multiscale").num_parameters == 36 * (4 + 8 + 16 + 32) + 144
    assert make_filter("depthwise", 10).num_parameters == 40
    assert make_filter("haar", 10).num_parameters == 0


def test_device_and_type_are_taken() -> None:
    for name in FILTERS:
        options: dict[str, Any] = {"device": "meta", "dtype": torch.float64}
        if name in ("none", "haar"):
            continue
        for parameter in make_filter(name, 8, **options).parameters():
            assert parameter.device.type == "meta"
            assert parameter.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "bnak"}, r"unknown filter 'bnak'.*'multiscale'.*did you mean 'bank'"),
        ({"name": "zzz"}, r"unknown filter 'zzz'.*'bank', 'multiscale'"),
        ({"name": "bank", "kernel": 3}, r"'bank' has no option 'kernel'.*'kernel_size'"),
        ({"name": "fir", "activation": "relu"}, "'fir' has no option 'activation'"),
        ({"name": "depthwise"}, "'depthwise' needs dim"),
        ({"name": "adaptive"}, "'adaptive' needs dim"),
        ({"name": "bank", "gains": "per_dim"}, "needs dim.*dim=None"),
        ({"name": "bank", "gains": "each"}, "gains must be 'shared' or 'per_dim'; got 'each'"),
        ({"name": "bank", "num_filters": 0}, "at least 1.*num_filters=0"),
        ({"name": "bank", "kernel_size": -1}, "at least 1.*kernel_size=-1"),
        ({"name": "bank", "activation": "tanh"}, "activation must be one of.*'tanh'"),
        ({"name": "multiscale", "scales": []}, "scales must be pairs"),
        ({"name": "multiscale", "scales": [(3, 4, 5)]}, "scales must be pairs.*3, 4, 5"),
        ({"name": "multiscale", "scales": [(3, 0)]}, "kernel_size=0"),
        ({"name": "haar", "dim": 4, "levels": 0}, "levels=0"),
        ({"name": "adaptive", "dim": 4, "width": 12, "heads": 4}, "width a multiple.*width=12"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_filter(**arguments)


def test_fir_collapses_to_its_bank() -> None:
    """The bank without ReLU is one FIR filter, with the same weights and the same gradients."""
    x = torch.randn(2, 20, 6, dtype=torch.float64)
    for gains in ("shared", "per_dim"):
        options: dict[str, Any] = {"num_filters": 9, "kernel_size": 5, "gains": gains}
        fir = make_filter("fir", 6, **options).double()
        assert isinstance(fir, FIRFilter)
        bank = make_filter("bank", 6, activation="identity", **options).double()
        bank.load_state_dict(fir.state_dict())
        torch.testing.assert_close(fir(x), bank(x))
        fir(x).square().sum().backward()
        bank(x).square().sum().backward()
        for a, b in zip(fir.parameters(), bank.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        assert fir.collapsed().shape == (1 if gains == "shared" else 6, 5)


def test_haar_lengths_grow_over_half_of_the_dimensions() -> None:
    haar = make_filter("haar", 16, levels=3)
    assert isinstance(haar, HaarFilter)
    assert haar.groups == [(2, 3), (4, 3), (8, 2)]
    x = torch.randn(1, 9, 16)
    assert torch.equal(haar(x)[..., :8], x[..., :8])
    # A constant stays itself where the average lies inside the sequence.
    inner = haar(torch.ones(1, 20, 16))[:, 7:-8]
    torch.testing.assert_close(inner, torch.ones_like(inner))
