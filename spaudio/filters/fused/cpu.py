"""The native library for CPUs, loaded with ctypes: filterbank and depthwise filter.

The library is built with the package if a C++ compiler is found. It has a C interface and does not
use torch's headers. It runs on the threads of torch's own OpenMP library, as many as
``torch.get_num_threads()``, so that the two do not compete for cores.
"""

import ctypes
import functools
import importlib.machinery
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.fused.problem import Problem

_ACTIVATIONS = {"relu": 0, "gelu": 1, "identity": 2}
_INTERFACE = 4  # SPAUDIO_INTERFACE of native/filterbank.h
_WIDEST = 16  # floats per vector; the library uses fewer if the processor supports no more


class _Signal(ctypes.Structure):
    """Address and strides, in elements, of a (batch, tokens, dim) tensor."""

    _fields_ = (("data", ctypes.c_void_p), ("strides", ctypes.c_int64 * 3))


class _Bank(ctypes.Structure):
    """``struct Bank`` of native/filterbank.h, field by field."""

    _fields_ = (
        *((size, ctypes.c_int64) for size in ("batch", "tokens", "dim", "scales")),
        *((array, ctypes.c_void_p) for array in ("shapes", "kernels", "gains", "mask")),
        *((choice, ctypes.c_int64) for choice in ("gain_shape", "activation")),
        *((flag, ctypes.c_int64) for flag in ("causal", "half", "residual")),
        *((number, ctypes.c_int64) for number in ("threads", "lanes")),
        ("parallel", ctypes.c_void_p),
    )


class _Depthwise(ctypes.Structure):
    """``struct Depthwise`` of native/filterbank.h, field by field."""

    _fields_ = (
        *((size, ctypes.c_int64) for size in ("batch", "tokens", "dim", "taps", "left")),
        *((array, ctypes.c_void_p) for array in ("kernels", "mask")),
        *((number, ctypes.c_int64) for number in ("half", "threads", "lanes")),
        ("parallel", ctypes.c_void_p),
    )


class Library:
    """The shared library.

    Args:
        path: Its file.

    Raises:
        OSError: If the file is missing, for another platform, or built from another version.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        interface = getattr(self._library, "spaudio_interface", None)
        if interface is None or interface() != _INTERFACE:
            raise OSError(f"{path.name} was built from another version")
        self._library.spaudio_lanes.restype = ctypes.c_int64
        self._library.spaudio_peak.restype = ctypes.c_double
        # torch loads its OpenMP library into the global scope; all of them have this symbol.
        region = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
        self._region = ctypes.cast(region, ctypes.c_void_p).value if region is not None else None

    @property
    def lanes(self) -> int:
        """Floats in the widest vector that both library and processor support."""
        return int(self._library.spaudio_lanes())

    def peak(self, seconds: float) -> float:
        """Measures multiply-adds in registers on torch's threads, in operations per second."""
        return float(
            self._library.spaudio_peak(
                ctypes.c_int64(_WIDEST),
                ctypes.c_int64(torch.get_num_threads()),
                ctypes.c_double(seconds),
                ctypes.c_void_p(self._region),
            )
        )

    def forward(self, problem: Problem, lanes: int = _WIDEST) -> Tensor:
        """Computes the result (batch, tokens, dim); see :meth:`backward` for the types."""
        bank = self._bank(problem, lanes)
        y = torch.empty(problem.x.shape, dtype=problem.x.dtype)
        _check(self._library.spaudio_forward(ctypes.byref(bank), _signal(problem.x), _signal(y)))
        return y

    def backward(
        self, grad: Tensor, problem: Problem, wanted: Sequence[bool], lanes: int = _WIDEST
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Computes gradients of ``x``, ``kernels`` and ``gains``; empty where not ``wanted``.

        ``x`` and ``grad`` are both float32 or both bfloat16, kernels and gains are float32.
        """
        bank = self._bank(problem, lanes)
        values = (problem.x, problem.kernels, problem.gains)
        grads = tuple(
            torch.empty(value.shape if want else 0, dtype=value.dtype)
            for value, want in zip(values, wanted, strict=True)
        )
        _check(
            self._library.spaudio_backward(
                ctypes.byref(bank),
                _signal(problem.x),
                _signal(grad),
                _signal(grads[0]) if wanted[0] else None,
                ctypes.c_void_p(grads[1].data_ptr() if wanted[1] else None),
                ctypes.c_void_p(grads[2].data_ptr() if wanted[2] else None),
            )
        )
        return grads[0], grads[1], grads[2]

    def depthwise(
        self, x: Tensor, kernels: Tensor, mask: Tensor | None, left: int, lanes: int = _WIDEST
    ) -> Tensor:
        """Adds to each token the output of the kernel of each dimension.

        Args:
            x: (batch, tokens, dim), float32 or bfloat16.
            kernels: (dim, taps), float32.
            mask: (batch, tokens), True where a token is padding, or None.
            left: Taps before a token's own.
            lanes: Floats per vector.
        """
        x, kernels, mask, depthwise = self._depthwise(x, kernels, mask, left, lanes)
        y = torch.empty_like(x)
        _check(self._library.spaudio_depthwise(ctypes.byref(depthwise), _data(x), _data(y)))
        return y

    def depthwise_backward(
        self,
        grad: Tensor,
        x: Tensor,
        kernels: Tensor,
        mask: Tensor | None,
        left: int,
        lanes: int = _WIDEST,
        wanted: Sequence[bool] = (True, True),
    ) -> tuple[Tensor, Tensor]:
        """Computes the gradients of ``x`` and ``kernels`` of :meth:`depthwise`.

        They are empty where not ``wanted``.
        """
        x, kernels, mask, depthwise = self._depthwise(x, kernels, mask, left, lanes)
        grad = grad.to(x.dtype).contiguous()
        dx, dkernels = (
            torch.empty(value.shape if want else 0, dtype=value.dtype)
            for value, want in zip((x, kernels), wanted, strict=True)
        )
        _check(
            self._library.spaudio_depthwise_backward(
                ctypes.byref(depthwise),
                _data(x),
                _data(grad),
                _data(dx) if wanted[0] else None,
                _data(dkernels) if wanted[1] else None,
            )
        )
        return dx, dkernels

    def _depthwise(
        self, x: Tensor, kernels: Tensor, mask: Tensor | None, left: int, lanes: int
    ) -> tuple[Tensor, Tensor, Tensor | None, _Depthwise]:
        """Returns the tensors as the library needs them, and the structure that points to them."""
        x, kernels = x.contiguous(), kernels.contiguous()
        mask = None if mask is None else mask.contiguous()
        depthwise = _Depthwise(
            *x.shape, kernels.shape[1], left, kernels.data_ptr(),
            None if mask is None else mask.data_ptr(), x.dtype == torch.bfloat16,
            torch.get_num_threads(), lanes, self._region,
        )  # fmt: skip
        return x, kernels, mask, depthwise

    def _bank(self, problem: Problem, lanes: int) -> _Bank:
        tensors = (problem.kernels, problem.gains, problem.padding_mask)
        held = [tensor if tensor is None else tensor.contiguous() for tensor in tensors]
        sizes = (ctypes.c_int64 * len(problem.shapes))(*problem.shapes)
        bank = _Bank(
            *problem.x.shape,
            len(problem.shapes) // 2,
            ctypes.cast(sizes, ctypes.c_void_p),
            *(tensor if tensor is None else tensor.data_ptr() for tensor in held),
            problem.gains.dim(),
            _ACTIVATIONS[problem.activation],
            problem.causal,
            problem.x.dtype == torch.bfloat16,
            problem.residual,
            torch.get_num_threads(),
            lanes,
            self._region,
        )
        # Keeps the memory alive as long as the structure that points to it.
        bank.held = (held, sizes)
        return bank


def _signal(tensor: Tensor) -> Any:
    return ctypes.byref(_Signal(tensor.data_ptr(), (ctypes.c_int64 * 3)(*tensor.stride())))


def _data(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("the native library could not allocate its buffers")


def library_path() -> Path | None:
    """Path of the library beside this module, or None if it was not built."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_native" + suffix)
        if path.exists():
            return path
    return None


@functools.cache
def library() -> Library | None:
    """Loads the library; returns None, with a warning once, if it is missing or does not load."""
    path = library_path()
    try:
        if path is None:
            raise OSError("it was not built: no C++ compiler was found, or it failed")
        return Library(path)
    except OSError as error:
        warnings.warn(
            f"spaudio's native filterbank is not available ({error}); a slower path in torch is "
            "used. To build it, install g++ 10 or newer, or clang++, and reinstall spaudio (in a "
            "clone: make kernel)",
            UserWarning,
            stacklevel=2,
        )
        return None


def obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the library does not support tensors of this device and type, or None if it does."""
    if device.type != "cpu" or dtype != torch.float32:
        return f"supports float32 and half precision on a CPU; got {dtype} on {device.type}"
    return "was not built or does not load here" if library() is None else None
