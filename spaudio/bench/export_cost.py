"""Exported models and plain features against the eager model, from waveform to probabilities."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import librosa
import soundfile
import torch

from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.errors import ConfigError
from spaudio.export.check import pad, synthetic_clips
from spaudio.export.exported import FORMATS, Runner, load_exported
from spaudio.export.module import WaveformClassifier
from spaudio.export.write import export_run
from spaudio.inference.predict import Predictor

BATCHES = (1, 8)
_COLD_STARTS = 3
COLUMNS = {
    "form": "{form}",
    "clips": "{batch:d}",
    "seconds per clip": "{clip_seconds:.2f}",
    "ms": "{ms:.1f}",
    "times real time": "{times_real_time:,.1f}",
    "times faster than eager": "{times_faster_than_eager:.2f}",
}


def measure(run: Path, rounds: int, limit: float) -> dict[str, Any]:
    """Exports a run's model with its front-end and compares it with the eager one.

    Args:
        run: The run's folder. Nothing is written into it.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds per batch size after which no further round starts.

    Returns:
        ``title``, ``machine``, ``missing`` (formats whose packages are not installed), and
        ``rows``, one per batch size and form of the model. Clips are as long as the longest one in
        the run. ``predict`` is a predictor that is loaded already, on one file. ``librosa`` is 13
        MFCC with two orders of deltas, without a model. ``cold`` is `spaudio predict` on one file
        in a new process.
    """
    predictor = Predictor(run, device="cpu")
    runners: dict[str, Runner] = {"eager": WaveformClassifier(predictor)}
    missing, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            target = Path(folder) / f"model.{form}"
            try:
                export_run(run, form, target)
            except ConfigError:
                missing.append(form)
                continue
            runners[form] = load_exported(target)
        clip = synthetic_clips(predictor.sample_rate, predictor.window_seconds)[0]
        file = Path(folder) / "clip.wav"
        soundfile.write(file, clip, predictor.sample_rate)
        for batch in BATCHES:
            waveform, lengths = pad([clip] * batch)

            def features(rate: int = predictor.sample_rate, batch: int = batch) -> None:
                for _ in range(batch):
                    mfcc = librosa.feature.mfcc(y=clip, sr=rate, n_mfcc=13)
                    for order in (1, 2):
                        librosa.feature.delta(mfcc, order=order)

            calls: dict[str, Callable[[], object]] = {
                name: lambda run=run: run(waveform, lengths)  # type: ignore[misc]  # noqa: B023
                for name, run in runners.items()  # called before the loop goes on
            }
            if batch == 1:
                calls["predict"] = lambda: predictor(file)
            with torch.inference_mode():
                seconds = take_turns({**calls, "librosa": features}, rounds, limit)
            rows += [
                {
                    "batch": batch,
                    "clip_seconds": predictor.window_seconds,
                    "form": name,
                    "rounds": len(took),
                    "seconds": median(took),
                    "times_real_time": batch * predictor.window_seconds / median(took),
                    "times_faster_than_eager": ratio(seconds["eager"], took),
                }
                for name, took in seconds.items()
            ]
        rows.append(_cold(run, file, predictor.window_seconds))
    title = f"not installed: {', '.join(missing) or 'none'}; "
    return {"title": title, "machine": machine(), "missing": missing, "rows": rows}


def _cold(run: Path, file: Path, clip_seconds: float) -> dict[str, Any]:
    """Times `spaudio predict` in a new process, which imports, loads and predicts."""
    threads = str(torch.get_num_threads())
    # Without a GPU, as the other rows.
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
    seconds = []
    for _ in range(_COLD_STARTS):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "spaudio.cli", "predict", run, file],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        seconds.append(time.perf_counter() - start)
    took = median(seconds)
    return {
        "batch": 1,
        "clip_seconds": clip_seconds,
        "form": "cold",
        "rounds": len(seconds),
        "seconds": took,
        "times_real_time": clip_seconds / took,
        "times_faster_than_eager": None,
    }
