"""Detects whether torch traces, exports, transforms or repeats a call, or just runs it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad


def is_jit_traced() -> bool:
    """Whether ``torch.jit.trace`` records the call, whose values are real."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing


def is_exported() -> bool:
    """Whether the call is recorded for a runtime that lacks the operator: jit, export, ONNX."""
    return is_jit_traced() or torch.compiler.is_exporting()


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_eager() -> bool:
    """Whether the call runs eagerly: it is neither compiled, nor exported, nor transformed.

    Only then may a function use operations that compilers, runtimes or transforms do not support.
    """
    return not (torch.compiler.is_compiling() or is_exported() or is_transformed())


def has_values(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be read: it is neither on ``meta`` nor fake."""
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def holds(condition: Tensor) -> bool:
    """Returns a single boolean, also in a call that ``jit.trace`` records, without its warning."""
    if not is_jit_traced():
        return bool(condition)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return bool(condition)


def is_readable(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be read at once: on a CPU, in a call that just runs.

    Other devices would have to wait for them. Fake tensors have types of their own.
    """
    return type(tensor) is Tensor and tensor.device.type == "cpu" and is_eager()


def in_backward() -> bool:
    """Whether a backward pass is running, where activation checkpointing reruns layers."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@torch.library.custom_op("spaudio::in_forward", mutates_args=())
def in_forward(x: Tensor) -> Tensor:
    """Whether no backward pass is running, for compiled code: a boolean, found when it runs.

    Args:
        x: Any tensor of the call; without it, the result would become a constant.
    """
    return torch.tensor(torch._C._current_graph_task_id() == -1)


@in_forward.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty((), dtype=torch.bool)


def is_symbolic(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether ``torch.fx.symbolic_trace`` is running, whose values have no shapes."""
    return any(isinstance(value, torch.fx.Proxy) for value in (*args, *kwargs.values()))


def as_leaf(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.fx.Proxy:
    """Records the call of a module in an fx graph without tracing into it.

    Raises:
        TypeError: If the module itself is being traced.
    """
    tracer = next(v for v in (*args, *kwargs.values()) if isinstance(v, torch.fx.Proxy)).tracer
    path = tracer.path_of_module(module)  # type: ignore[attr-defined]
    if not path:
        raise TypeError(
            f"torch.fx cannot trace {type(module).__name__} itself, only as part of a module; use "
            "torch.export"
        )
    return tracer.create_proxy("call_module", path, tuple(args), dict(kwargs))
