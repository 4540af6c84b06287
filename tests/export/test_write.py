"""Exported files equal the original for any batch and length, without this package."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

from spaudio.cli import main
from spaudio.errors import CheckpointError, ConfigError
from spaudio.experiment.inputs import Inputs
from spaudio.export import write
from spaudio.export.check import measure_difference, pad, synthetic_clips
from spaudio.export.exported import FACTS, load_exported
from spaudio.export.module import WaveformClassifier
from spaudio.export.write import export_run
from spaudio.inference.predict import Predictor
from spaudio.model.pretrained.adapt import Adaptation
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.load_encoder import load_encoder
from tests import ROOT
from tests.fixtures.tiny_encoders import save_encoder
from tests.fixtures.tiny_run import CLASSES, make_untrained_run

BANK = (
    *("filter=bank", "filter.num_filters=6", "tokens.stack=2", "tokens.normalise=global"),
    "tokens.spectrogram.scaling=pcen",
)
ADAPTIVE = (
    *("tokens=waveform", "tokens.stack=2", "tokens.waveform.pooling=max"),
    *("filter=adaptive", "filter.num_filters=4", "filter.mask_width=8", "filter.mask_heads=2"),
    *("model.causal=true", "model.positions=learned", "model.max_tokens=80"),
    *("model.pooling=attention", "tokens.normalise=clip_level"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_run(tmp_path_factory.mktemp("runs"), *BANK)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose clips have several labels."""
    run = make_untrained_run(tmp_path_factory.mktemp("runs"), "tokens=words", "filter=depthwise")
    replace(Inputs.load(run), multi_label=True, temperature=2.0).save(run)
    return run


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_run(tmp_path_factory.mktemp("runs"), *ADAPTIVE)


def check_without_this_package(target: Path) -> None:
    """Runs a .pt2 file in a process that cannot import this package."""
    code = (
        "import sys, json\n"
        "sys.modules['spaudio'] = sys.modules['torchaudio'] = None\n"
        "import torch\n"
        f"facts = {{{FACTS!r}: ''}}\n"
        f"module = torch.export.load({str(target)!r}, extra_files=facts).module()\n"
        "p = module(torch.zeros(5, 999), torch.arange(5) + 9)\n"
        "print(json.dumps([list(p.shape), json.loads(facts['spaudio.json'])]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=target.parent
    )
    assert done.returncode == 0, done.stderr
    shape, facts = json.loads(done.stdout)
    assert shape == [5, len(CLASSES)]
    assert facts["classes"] == list(CLASSES)
    assert facts["sample_rate"] == 8000


# Together, the models have every part that can be exported.
@pytest.mark.parametrize(
    ("form", "model"), [("pt2", "adaptive"), ("onnx", "run"), ("onnx", "words")]
)
def test_the_command_writes_what_it_has_checked(
    form: str,
    model: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run: Path = request.getfixturevalue(model)
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    clips = synthetic_clips(8000, 1.3, seed=3)
    for i in (0, 2):
        soundfile.write(tmp_path / f"{i}.wav", clips[i], 8000)
    target = tmp_path / "out" / f"m.{form}"
    target.parent.mkdir()
    command = ["export", str(run), "--format", form, "--output", str(target)]
    main([*command, "--clips", str(tmp_path)])
    out = capsys.readouterr().out
    assert str(target) in out
    assert "windows of 0.5 s, one every 0.25 s, the last at the end, leave silent ones out" in out
    assert "on 14 clips" in out  # six synthetic ones, and two files of five and three windows
    assert list(target.parent.iterdir()) == [target]
    # Batches, lengths and sounds that neither export nor its check has seen.
    predictor, exported = Predictor(run), load_exported(target)
    assert measure_difference(predictor, exported, synthetic_clips(8000, 0.9, seed=5)) < 1e-4
    assert measure_difference(predictor, lambda *batch: exported(*batch).flip(1), clips) > 1e-2
    assert math.isnan(measure_difference(predictor, lambda *b: exported(*b) * math.nan, clips))
    for clip in clips[:2]:  # whole and one sample: a batch of one, padded to a length of its own
        batch, lengths = pad([clip])
        wide = torch.nn.functional.pad(batch, (0, 777), value=-0.5)
        torch.testing.assert_close(
            exported(wide, lengths), exported(batch, lengths), atol=1e-5, rtol=0
        )
    if form == "pt2":
        check_without_this_package(target)
        return
    # The documented example.
    soundfile.write(tmp_path / "a.wav", synthetic_clips(8000, 0.4, seed=3)[0], 8000)
    (tmp_path / "runs" / "folder" / "ID").mkdir(parents=True)
    target.rename(tmp_path / "runs" / "folder" / "ID" / "model.onnx")
    page = (ROOT / "docs" / "own_sounds.md").read_text(encoding="utf-8")
    [example] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
                 if "onnxruntime" in code]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    found = Predictor(run)(Path("a.wav"))
    assert capsys.readouterr().out.strip() == found.label


def test_segments_of_the_most_tokens_are_exported(tmp_path: Path) -> None:
    run = make_untrained_run(
        tmp_path, "model.positions=learned", "model.max_tokens=20", "segments.seconds=0.2",
        "tokens.stack=1", longest_seconds=0.2,
    )  # fmt: skip
    assert export_run(run, "pt2").path.is_file()


def test_an_exported_model_is_a_copy_of_the_predictors(tmp_path: Path) -> None:
    base = load_encoder(str(save_encoder("whisper", tmp_path)))
    original = AdaptedClassifier(base, Adaptation("bitfit"), 3)
    inputs = SimpleNamespace(multi_label=False, temperature=1.0)
    predictor: Any = SimpleNamespace(
        model=original, run=tmp_path, window_seconds=1.0, inputs=inputs,
        front_end=SimpleNamespace(config=SimpleNamespace(token_samples=320)),
    )  # fmt: skip
    trained = [value.requires_grad for value in original.parameters()]
    exported = WaveformClassifier(predictor).double()
    assert [value.requires_grad for value in original.parameters()] == trained
    assert all(value.dtype == torch.float32 for value in original.parameters())
    assert all(value.dtype == torch.float64 for value in exported.parameters())


def test_a_model_that_differs_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and written by the tests above.
    monkeypatch.setattr(write, "trace", lambda _: None)
    monkeypatch.setattr(write, "_write", lambda _, path, facts: path.write_bytes(b"a program"))
    monkeypatch.setattr(write, "load_exported", lambda path: path.read_bytes())
    monkeypatch.setattr(write, "measure_difference", lambda *_: 0.01)
    with pytest.raises(CheckpointError, match=r"differs from that of .* nothing was written"):
        export_run(run, "pt2", tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_a_model_too_large_for_one_onnx_file_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.onnx._internal.exporter import _onnx_program

    class Small(torch.nn.Module):
        """Of the inputs and the output of a classifier."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(1, 4)

        def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
            return self.linear(waveform[:, :1]) + lengths[:, None]

    small = torch.export.export(Small(), (torch.zeros(3, 9), torch.arange(3)))
    monkeypatch.setattr(write, "trace", lambda _: small)
    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)  # bytes
    with pytest.raises(ConfigError, match="too large for one ONNX file"):
        export_run(run, "onnx", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("form", "named"),
    [("pt2", r"must end in \.pt2"), ("tflite", "onnx, pt2"), ("onnx", r"\[export\]")],
)
def test_what_cannot_be_written_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, form: str, named: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=named):
        export_run(run, form, run / "m.onnx")
