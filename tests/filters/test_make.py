"""The registry, the factory and the arguments of the classes."""

from typing import Any

import pytest
import torch

from spaudio.filters import FILTERS, FilterBank, TokenFilter, make_filter
from tests.filters.cases import spread


def test_a_filter_registers_itself_where_it_is_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILTERS, "twice", TokenFilter)  # removed at the end
    del FILTERS["twice"]

    def define(name: str, title: str = "Twice") -> type[TokenFilter]:
        body = {"convolve": lambda self, window: window, "taps": lambda self: [], "config": dict}
        return type(title, (TokenFilter,), {"name": name, **body})

    define("twice")
    x = torch.randn(2, 4, 3)
    assert torch.equal(make_filter("twice")(x), 2 * x)
    again = define("twice")  # as in a notebook
    assert FILTERS["twice"] is again
    with pytest.raises(ValueError, match=r"'bank' is taken by .*FilterBank"):
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
    sizes = {"none": 0, "haar": 0, "depthwise": 40, "multiscale": 36 * 60 + 144}
    if name != "adaptive":
        assert filter.num_parameters == sizes.get(name, 36 * (4 + 1))
    if name not in ("none", "haar"):
        elsewhere = make_filter(name, 10, device="meta", dtype=torch.float64)
        kinds = {(p.device.type, p.dtype) for p in elsewhere.parameters()}
        assert kinds == {("meta", torch.float64)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "bnak"}, r"unknown filter 'bnak'.*'multiscale'.*did you mean 'bank'"),
        ({"name": "zzz"}, r"unknown filter 'zzz'.*'bank', 'multiscale'"),
        ({"name": "bank", "kernel": 3}, r"'bank' has no option 'kernel'.*'kernel_size'"),
        ({"name": "fir", "activation": "relu"}, "'fir' has no option 'activation'"),
        ({"name": "depthwise"}, "'depthwise' needs dim"),
        ({"name": "adaptive"}, "'adaptive' needs dim"),
        ({"name": "bank", "gains": "per_dim"}, "per_dim.*needs dim"),
        ({"name": "bank", "gains": "each"}, "gains must be 'shared' or 'per_dim'; got 'each'"),
        ({"name": None}, "unknown filter None.*'bank'"),
        ({"name": ["bank"]}, r"unknown filter \['bank'\].*did you mean 'bank'"),
        ({"name": "bank", "causal": "false"}, "causal must be True or False; got 'false'"),
        ({"name": "bank", "num_filters": 0}, "at least 1.*num_filters=0"),
        ({"name": "bank", "kernel_size": 4.0}, "whole numbers.*kernel_size=4.0"),
        ({"name": "depthwise", "dim": 0}, "^dim and kernel_size must be.*dim=0"),
        ({"name": "bank", "kernel_size": -1}, "at least 1.*kernel_size=-1"),
        ({"name": "bank", "activation": "tanh"}, "activation must be one of.*'tanh'"),
        ({"name": "bank", "activation": ["relu"]}, r"activation must be one of.*\['relu'\]"),
        ({"name": "depthwise", "dim": 4, "activation": ["relu"]}, r"None or one of.*\['relu'\]"),
        ({"name": "multiscale", "scales": []}, "scales must be pairs"),
        ({"name": "multiscale", "scales": 4}, "scales must be pairs.*got 4"),
        ({"name": "bank", "kernel_size": True}, "whole numbers.*kernel_size=True"),
        ({"name": "multiscale", "scales": [36, 4]}, r"scales must be pairs.*\[36, 4\]"),
        ({"name": "multiscale", "scales": [(3, 4, 5)]}, "scales must be pairs.*3, 4, 5"),
        ({"name": "multiscale", "scales": iter([(3, 4, 5)])}, "scales must be pairs.*3, 4, 5"),
        ({"name": "multiscale", "scales": [(3, 0)]}, "kernel_size=0"),
        ({"name": "haar", "dim": 4, "levels": 0}, "levels=0"),
        (
            {"name": "adaptive", "dim": 4, "mask_width": 12, "mask_heads": 4},
            "mask_width must be a multiple.*mask_width=12",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_filter(**arguments)
