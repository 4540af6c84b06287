"""Runs an exported file with ``torch.export`` or ONNX Runtime, on the CPU."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spaudio.errors import ConfigError, how_to_install

FORMATS = ("onnx", "pt2")
#: Name of the file of facts within a .pt2 file, and of the metadata entry of an ONNX model.
FACTS = "spaudio.json"

Runner = Callable[[Tensor, Tensor], Tensor]


def load_exported(path: Path) -> Runner:
    """Opens an exported model.

    Args:
        path: A file that ends in ``.onnx`` or ``.pt2``.

    Returns:
        A function of waveforms (batch, samples) and lengths (batch,) that returns probabilities.

    Raises:
        ConfigError: If the file has another suffix, or ONNX Runtime is missing.
    """
    if path.suffix == ".onnx":
        return _load_onnx(path)
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    raise ConfigError(f"{path}: the name of an exported model must end in .onnx or .pt2")


def _load_onnx(path: Path) -> Runner:
    onnxruntime = import_onnx("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(waveform: Tensor, lengths: Tensor) -> Tensor:
        inputs = {"waveform": waveform.numpy(), "lengths": lengths.numpy()}
        return torch.from_numpy(session.run(["probabilities"], inputs)[0])

    return run


def import_onnx(name: str) -> Any:
    """Imports a package of the extra ``export``.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"format onnx needs {name}, which cannot be imported ({error}): "
            f"{how_to_install('export')}, or use --format pt2"
        ) from error
