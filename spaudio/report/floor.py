"""What a transformer has to beat: the majority class, and a classical classifier.

The classical floor takes seconds: summary statistics of log-mel and MFCC frames, standardised, and
a support vector machine with an RBF kernel. Small data is where it is strong.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from scipy.fft import dct
from scipy.signal import savgol_filter
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from spaudio.audio.manifest import Clip, write_atomic
from spaudio.tokens.cache import build_cache
from spaudio.tokens.logmel import LogMelConfig

MFCC = 20
SEGMENTS = 8
Frames = npt.NDArray[np.float32]


def summarise(frames: Frames) -> npt.NDArray[np.float64]:
    """Describes a clip by one vector.

    Args:
        frames: Log-mel frames (frames, n_mels).

    Returns:
        Mean and standard deviation of each band, standard deviation of the deltas of MFCC-20, and
        the means of MFCC-20 over eight equal segments: (2 * n_mels + 20 + 160,). Deltas are those
        of ``librosa.feature.delta``: a Savitzky-Golay slope over nine frames.
    """
    mfcc = dct(frames, norm="ortho", axis=1)[:, :MFCC]
    window = min(9, len(mfcc) - 1 + len(mfcc) % 2)
    delta = (
        savgol_filter(mfcc, window, polyorder=1, deriv=1, axis=0, mode="interp")
        if window >= 3
        else np.zeros_like(mfcc)
    )
    edges = np.linspace(0, len(mfcc), SEGMENTS + 1)
    segments = [
        mfcc[min(int(a), len(mfcc) - 1) : max(int(b), int(a) + 1)].mean(axis=0)
        for a, b in pairwise(edges)
    ]
    parts = [frames.mean(axis=0), frames.std(axis=0), delta.std(axis=0), *segments]
    return np.concatenate(parts).astype(np.float64)


def floor_settings(sample_rate: int) -> LogMelConfig:
    """Returns the floor's own front-end: 40 bands up to 8 kHz, 64 above; 25 ms every 10 ms."""
    return LogMelConfig(sample_rate=sample_rate, n_mels=40 if sample_rate <= 8000 else 64)


def measure_floor(
    clips: Sequence[Clip], classes: Sequence[str], root: Path, sample_rate: int, cache: Path
) -> dict[str, Any]:
    """Scores both references on the test split, once; the result is kept on disk.

    Both learn from the training and the validation split together: neither selects anything, so
    holding clips back would only weaken them.

    Args:
        clips: The manifest's clips.
        classes: Class names.
        root: Folder that the clips' paths are relative to.
        sample_rate: In Hz.
        cache: Where features and results are kept.

    Returns:
        ``majority`` and ``svm`` (accuracies), and ``seconds``.
    """
    start = time.perf_counter()
    features = build_cache(clips, root, floor_settings(sample_rate), cache)
    split = "\n".join(sorted(f"{c.path} {c.label} {c.split == 'test'}" for c in clips))
    key = hashlib.sha256(f"v1\n{features.key}\n{split}".encode()).hexdigest()[:16]
    kept = cache / f"floor-{key}.json"
    if kept.is_file():
        result: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return result
    index = {name: i for i, name in enumerate(classes)}
    train = [clip for clip in clips if clip.split != "test"]
    test = [clip for clip in clips if clip.split == "test"]
    x_train, x_test = (
        np.stack([summarise(features.frames(clip.path)) for clip in part]) for part in (train, test)
    )
    y_train, y_test = (np.array([index[clip.label] for clip in part]) for part in (train, test))
    majority = Counter(y_train.tolist()).most_common(1)[0][0]
    with Console().status("classical floor (SVM)"):
        svm = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(x_train, y_train)
        accuracy = float((svm.predict(x_test) == y_test).mean())
    result = {
        "majority": float((y_test == majority).mean()),
        "svm": accuracy,
        "seconds": time.perf_counter() - start,
    }
    write_atomic(kept, json.dumps(result).encode())
    return result
