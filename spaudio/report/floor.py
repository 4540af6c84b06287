"""Reference scores of a report: the majority class, and a classical classifier, the floor.

The classical floor is a support vector machine with an RBF kernel, on standardised summary
statistics of log-mel and MFCC frames. It takes seconds and is strong on small datasets.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # submodules load on first use, like sklearn
import torch
from numpy.lib.stride_tricks import sliding_window_view
from rich.console import Console
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.audio.manifest import AnyClip, Clip, SourceClip
from spaudio.audio.split import seeded_order
from spaudio.io.journal import JsonLines
from spaudio.tokens.batch import multi_hot
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.config import Frames, SpectrogramConfig, TokenConfig
from spaudio.tokens.spectrogram_front_end import SpectrogramFrontEnd
from spaudio.training.multilabel import average_precisions

MFCC = 20
SEGMENTS = 8
LARGEST = 10_000  # clips to train on
COMPONENTS = 2_000  # clips that approximate the kernel for several labels
#: What the trivial prediction is, by the name of the main score.
TRIVIAL = {"accuracy": "majority class", "mAP": "class frequencies"}
Summaries = npt.NDArray[np.float64]
Targets = npt.NDArray[Any]


def floor_name(method: str, floor: Mapping[str, Any]) -> str:
    """Returns the name of the classical floor for a table, with its number of clips if not all."""
    part = f"; trained on {floor['trained_on']:,} clips" if "trained_on" in floor else ""
    return f"classical floor (log-mel and MFCC statistics, {method}{part})"


class FloorFeatures(FrameCache):
    """Summaries of clips on which the classical floor is trained, as a store of `prepare`.

    Args:
        folder: Where features are kept.
        sample_rate: In Hz. The front-end has 20 mel bands for rates up to 1.3 kHz, 40 up to 8 kHz
            and 64 above, in windows of 25 ms every 10 ms.
        frames: The store that is filled before this one. If its frames are the same, they are
            computed once for both.
    """

    def __init__(self, folder: Path, sample_rate: int, frames: FrameCache | None = None) -> None:
        # At the lowest rates, 40 bands would be narrower than the bins of the window's transform.
        count = 20 if sample_rate <= 1300 else 40 if sample_rate <= 8000 else 64
        bands = SpectrogramConfig(n_mels=count)
        front_end = SpectrogramFrontEnd(TokenConfig(sample_rate=sample_rate, spectrogram=bands))
        if frames is not None and frames.settings != front_end.cache_key:
            frames = None

        def extract(waveform: Waveform) -> Summaries:
            log_mel = frames.latest(waveform) if frames is not None else None
            if log_mel is None:
                log_mel = front_end.extract(waveform)
            return summarise(front_end.restore(log_mel))[None]

        settings = {"summary": "v1", **front_end.cache_key}
        super().__init__(folder, settings, sample_rate, extract, np.asarray)

    @override
    def select(self, clips: Sequence[SourceClip]) -> Sequence[SourceClip]:
        # With folds, every clip is in some test split. `measure_floor` adds the clips that this
        # choice misses, such as one that replaces a bad clip.
        return clips if any(clip.fold is not None for clip in clips) else _choose(clips)


def summarise(frames: Frames) -> Summaries:
    """Describes a clip by one vector.

    Args:
        frames: Log-mel frames (frames, n_mels).

    Returns:
        Mean and standard deviation of each band, standard deviation of the slopes of MFCC-20, and
        the means of MFCC-20 over eight equal segments: (2 * n_mels + 20 + 160,). Slopes are
        fitted to nine frames.
    """
    mfcc = scipy.fft.dct(frames, norm="ortho")[:, :MFCC]
    width = min(9, len(mfcc) - 1 + len(mfcc) % 2)
    slopes = np.zeros_like(mfcc)
    if width >= 3:
        # Like librosa.feature.delta, which solves for the same weights again for each clip. Slopes
        # at the ends are those of the first and the last whole window.
        half = width // 2
        offsets = np.arange(-half, half + 1, dtype=mfcc.dtype)
        inner = sliding_window_view(mfcc, width, axis=0) @ (offsets / (offsets @ offsets))
        slopes = np.pad(inner, ((half, half), (0, 0)), mode="edge")
    edges = np.linspace(0, len(mfcc), SEGMENTS + 1)
    segments = [
        mfcc[min(int(a), len(mfcc) - 1) : max(int(b), int(a) + 1)].mean(axis=0)
        for a, b in pairwise(edges)
    ]
    parts = [frames.mean(axis=0), frames.std(axis=0), slopes.std(axis=0), *segments]
    return np.concatenate(parts).astype(np.float64)


def measure_floor(
    clips: Sequence[Clip],
    classes: Sequence[str],
    root: Path,
    features: FloorFeatures,
    *,
    multi_label: bool = False,
) -> dict[str, Any]:
    """Scores both references on the test split; caches the result beside the features.

    Both are trained on the training and validation splits together, because neither selects a
    model. The training time of a support vector machine grows faster than the square of the number
    of clips, so on a large dataset it is trained on `LARGEST` clips.

    Args:
        clips: The manifest's clips.
        classes: Class names.
        root: Folder that the clips' paths are relative to.
        features: Summaries of the clips; those that no preparation has added are computed here.
        multi_label: A clip may have several classes. Then the scores are mean average precisions
            of the class frequencies, and of a kernel ridge regression per class.

    Returns:
        ``majority`` and ``svm`` (accuracies), and ``seconds``; ``trained_on``, the number of clips,
        if it is not all of them.
    """
    start = time.perf_counter()
    labels = [clip.label for clip in clips if clip.split != "test"]
    clips = _choose(clips)
    train = [clip for clip in clips if clip.split != "test"]
    test = [clip for clip in clips if clip.split == "test"]
    features.root = root
    features.fill(root / clip.path for clip in clips)
    used = sorted(
        f"{clip.path} {clip.label} {clip.split == 'test'} {features.entry(clip.path).samples}"
        for clip in clips
    )
    kind = "multi-label" if multi_label else "one label"
    largest = Counter(labels).most_common(1)[0][0]
    # If no clip is left out, the clips alone determine the largest class.
    most = [largest] if len(labels) > len(train) and not multi_label else []
    identity = json.dumps([kind, *used, *most])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    lines = JsonLines(features.folder / f"floor-{key}.jsonl", {"floor": key})
    if (known := next(lines.read(), None)) is not None:
        return known[0]
    x_train, x_test = (
        np.concatenate([features.frames(clip.path) for clip in part]) for part in (train, test)
    )
    index = {name: i for i, name in enumerate(classes)}
    y_train, y_test = (
        np.stack([multi_hot(clip.label, index) for clip in part])
        if multi_label
        else np.array([index[clip.label] for clip in part])
        for part in (train, test)
    )
    with Console(stderr=True).status("classical floor"):
        if multi_label:
            majority, svm = _multi_label_floor(x_train, y_train, x_test, y_test)
        else:
            majority = float((y_test == index[largest]).mean())
            svm = _single_label_floor(x_train, y_train, x_test, y_test)
    result: dict[str, Any] = {
        "majority": majority,
        "svm": svm,
        "seconds": time.perf_counter() - start,
    }
    if len(labels) > len(train):
        result["trained_on"] = len(train)
    lines.open(0)
    lines.append(result)
    lines.close()
    return result


def _choose(clips: Sequence[AnyClip]) -> list[AnyClip]:
    """Returns the test clips and at most `LARGEST` of the others, the same ones each time."""
    train = [clip.path for clip in clips if clip.split != "test"]
    kept = set(seeded_order(train, 0)[:LARGEST] if len(train) > LARGEST else train)
    return [clip for clip in clips if clip.split == "test" or clip.path in kept]


def _single_label_floor(
    x_train: Summaries, y_train: Targets, x_test: Summaries, y_test: Targets
) -> float:
    """Returns the accuracy of the support vector machine."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    svm = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(x_train, y_train)
    return float((svm.predict(x_test) == y_test).mean())


def _multi_label_floor(
    x_train: Summaries, y_train: Targets, x_test: Summaries, y_test: Targets
) -> tuple[float, float]:
    """Returns the mAP of the class frequencies, and of one regression per class.

    The kernel is that of the support vector machine, in Nyström's approximation, so that hundreds
    of classes need one linear solve.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kernel = Nystroem(
        gamma=1 / x_train.shape[1], n_components=min(COMPONENTS, len(x_train)), random_state=0
    )
    model = make_pipeline(StandardScaler(), kernel, Ridge(alpha=1.0)).fit(x_train, y_train)
    truth, found = torch.from_numpy(y_test), torch.from_numpy(model.predict(x_test))
    constant = torch.zeros_like(found)  # one score per class for all clips
    majority, ridge = (np.nanmean(average_precisions(p, truth)) for p in (constant, found))
    return float(majority), float(ridge)
