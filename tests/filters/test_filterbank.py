"""The function ``filterbank``: its semantics, independent of the backend."""

import pytest
import torch

from spaudio.filters import filterbank


def test_taps_by_example() -> None:
    x = torch.arange(1.0, 7).reshape(1, 6, 1)
    # Centred kernels of even size read one token more from the future.
    for size, seen in ((1, [2]), (2, [2, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])):
        y = filterbank(x, torch.ones(1, size), torch.ones(1))
        assert y[0, 1, 0] == sum(seen)
    # Causal taps end at the token.
    y = filterbank(x, torch.tensor([[0.0, 10.0, 1.0]]), torch.ones(1), causal=True)
    assert y.flatten().tolist() == [1, 12, 23, 34, 45, 56]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, r"x must be .*\(2, 3\)"),
        ({"x": torch.zeros(2, 3, 4, dtype=torch.long)}, "x must be floating point.*int64"),
        ({"kernels": torch.zeros(5)}, r"kernels must be \(M, K\).*\(5,\)"),
        ({"kernels": []}, "kernels must be"),
        ({"kernels": torch.zeros(5, 3, dtype=torch.complex64)}, "must be real; got.*complex64"),
        ({"gains": torch.zeros(5, device="meta")}, "x is on cpu and kernels or gains on meta"),
        ({"kernels": torch.zeros(5, 0)}, r"kernels must be.*\(5, 0\)"),
        ({"gains": torch.zeros(6)}, r"gains must have one of the shapes.*\(6,\)"),
        ({"gains": torch.zeros(3, 5)}, r"gains must have one of the shapes.*\(3, 5\)"),
        ({"activation": "tanh"}, "activation must be one of.*'tanh'"),
        ({"activation": ["relu"]}, r"activation must be one of.*\['relu'\]"),
        ({"x": torch.zeros(2, 7, 4).numpy()}, "x must be a tensor.*got ndarray"),
        ({"kernels": 1.0}, "kernels and gains must be tensors; got float"),
        ({"kernels": [[1.0, 2.0]]}, "kernels and gains must be tensors; got list"),
        ({"gains": 1.0}, "kernels and gains must be tensors; got float"),
        ({"causal": "false"}, "causal must be True or False; got 'false'"),
        ({"residual": 1}, "residual must be True or False; got 1"),
        ({"padding_mask": torch.zeros(2, 7)}, "padding_mask must be boolean"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "x": torch.zeros(2, 7, 4),
        "kernels": torch.zeros(5, 3),
        "gains": torch.zeros(5),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        filterbank(**arguments)  # type: ignore[arg-type]
