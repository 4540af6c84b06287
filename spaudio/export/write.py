"""Exports a run's model as ONNX or as a ``torch.export`` program, and checks the file."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.export import Dim, ExportedProgram

from spaudio.audio.find import find_files
from spaudio.errors import AudioError, CheckpointError, ConfigError
from spaudio.export.check import measure_difference, pad, synthetic_clips
from spaudio.export.exported import FACTS, FORMATS, import_onnx, load_exported
from spaudio.export.module import WaveformClassifier
from spaudio.inference.predict import Predictor

#: Largest accepted difference of a probability. A different order of summation gives about 1e-6,
#: and more where it rounds a frame to the neighbouring float16 value.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Export:
    """Result of an export.

    Args:
        path: The file.
        difference: Largest absolute difference of its probabilities from the original's.
        clips: Number of clips that were compared.
        windows: How prediction cuts longer sounds and averages, as an instruction; the exported
            model does neither.
    """

    path: Path
    difference: float
    clips: int
    windows: str

    def __str__(self) -> str:
        return (
            f"{self.path}: largest difference of a probability from the original "
            f"{self.difference:.2e} on {self.clips} clips, alone and in padded batches. For longer "
            f"sounds, {self.windows}; `spaudio predict` is similar, but applies the temperature to "
            "the average"
        )


def export_run(
    run: Path,
    form: str,
    output: Path | None = None,
    clips: Sequence[Path] = (),
    base: str | None = None,
) -> Export:
    """Exports the best model of a run with its front-end.

    The file takes ``waveform`` (batch, samples), float32, mono at the run's sample rate, and
    ``lengths`` (batch,), int64, and returns ``probabilities`` (batch, classes). The batch may be of
    any size, and so may samples, except with learned positions and with Whisper's encoder
    (:attr:`WaveformClassifier.max_samples`). The file includes class names and sample rate as JSON.
    It is written only after it has passed the check.

    Args:
        run: The run's folder.
        form: ``"onnx"`` or ``"pt2"``.
        output: None writes ``model.onnx`` or ``model.pt2`` into the run's folder.
        clips: Audio files or folders to check it on, in addition to synthetic sounds.
        base: Pretrained encoder; see ``base`` of :class:`spaudio.inference.predict.Predictor`.

    Returns:
        Path and largest difference.

    Raises:
        AudioError: If a clip of ``clips`` cannot be used.
        CheckpointError: If the run cannot be used, or the exported model differs from it.
        ConfigError: If the format is unknown, its packages are missing, or the model cannot be
            exported; see :class:`WaveformClassifier`.
    """
    if form not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}; got {form!r}")
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            import_onnx(package)
    predictor = Predictor(run, base=base)
    files, bad = find_files(clips)
    if bad:
        raise AudioError(f"{bad[0][0]}: {bad[0][1]}")
    synthetic = synthetic_clips(predictor.sample_rate, predictor.window_seconds)
    sounds = [
        window.samples
        for pieces in (*([one] for one in synthetic), *map(predictor.read, files))
        for batch in predictor.windows(pieces)
        for window in batch
    ]
    target = run / f"model.{form}" if output is None else output
    if target.suffix != f".{form}":
        raise ConfigError(f"--output {target}: a file of format {form} must end in .{form}")
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        facts = {
            "classes": list(predictor.inputs.classes),
            "sample_rate": predictor.sample_rate,
            "longest_seconds": predictor.inputs.longest_seconds,
            "run": run.resolve().name,
        }
        _write(trace(WaveformClassifier(predictor)), temporary, facts)
        difference = measure_difference(predictor, load_exported(temporary), sounds)
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"the exported model differs from that of {run} by {difference:.2e} in a "
                f"probability, more than {TOLERANCE:g}; nothing was written. Try another version "
                "of torch, or another --format"
            )
        os.replace(temporary, target)
    finally:
        for file in (temporary, _data_file(temporary)):
            file.unlink(missing_ok=True)
    return Export(target, difference, len(sounds), predictor.windows.in_words)


def trace(module: WaveformClassifier) -> ExportedProgram:
    """Traces the model with dynamic batch and samples, and without custom operators."""
    example = pad(synthetic_clips(module.token_samples, 3.0)[:3])  # of up to three tokens
    shapes = {
        "waveform": {0: Dim("batch"), 1: Dim("samples", max=module.max_samples)},
        "lengths": {0: Dim("batch")},
    }
    # Filterbanks use plain convolutions, which every runtime supports.
    with mock.patch.dict(os.environ, SPAUDIO_FILTER_BACKEND="reference"), torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=shapes)


def _write(program: ExportedProgram, path: Path, facts: dict[str, Any]) -> None:
    """Writes the program in the format given by the path's suffix."""
    text = json.dumps(facts)
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files={FACTS: text})
        return
    with _quiet("torch.onnx"):
        converted = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["waveform", "lengths"],
            output_names=["probabilities"],
            verbose=False,
        )
    if converted is None:
        raise CheckpointError("torch.onnx.export returned no program; try another version of torch")
    converted.model.metadata_props[FACTS] = text
    converted.save(path, external_data=False)
    if _data_file(path).exists():  # torch ignores external_data=False above 1.5 GiB
        raise ConfigError(
            "the model is too large for one ONNX file, which holds at most 2 GB; give --format pt2"
        )


def _data_file(path: Path) -> Path:
    """File beside an ONNX file that holds the weights of a large model."""
    return path.with_name(path.name + ".data")


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Suppresses a logger's warnings about optional packages."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
