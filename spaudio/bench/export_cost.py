"""Exported models against the eager one, from waveform to probabilities, timed in turn."""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.errors import ConfigError
from spaudio.experiment.predict import Predictor
from spaudio.export.check import pad, synthetic_clips
from spaudio.export.exported import FORMATS, Runner, load_exported
from spaudio.export.module import WaveformClassifier
from spaudio.export.write import export_run

BATCHES = (1, 8)
COLUMNS = {
    "form": "{form}",
    "clips": "{batch:d}",
    "seconds per clip": "{clip_seconds:.2f}",
    "ms": "{ms:.1f}",
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
        ``rows``, one per batch size and form of the model. Clips are as long as the longest one of
        the run.
    """
    predictor = Predictor(run)
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
        for batch in BATCHES:
            waveform, lengths = pad([clip] * batch)
            with torch.inference_mode():
                calls = {
                    name: lambda run=run: run(waveform, lengths)  # noqa: B023  (called at once)
                    for name, run in runners.items()
                }
                seconds = take_turns(calls, rounds, limit)
            rows += [
                {
                    "batch": batch,
                    "clip_seconds": predictor.window_seconds,
                    "form": name,
                    "rounds": len(took),
                    "seconds": median(took),
                    "times_faster_than_eager": ratio(seconds["eager"], took),
                }
                for name, took in seconds.items()
            ]
    title = f"not installed: {', '.join(missing) or 'none'}; "
    return {"title": title, "machine": machine(), "missing": missing, "rows": rows}
