"""What a run saves to process other audio like its own, and to recognise its own data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spaudio.audio.manifest import read_manifest
from spaudio.audio.prepare import previous_manifest
from spaudio.errors import CheckpointError, some
from spaudio.io.plain import read_json, write_json
from spaudio.tokens.config import NORMALISATIONS
from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser, Normaliser
from spaudio.tokens.pauses import Pauses
from spaudio.training.alignment import Alignment
from spaudio.training.checkpoint import HASHES, WEIGHTS

Values = npt.NDArray[np.float32]

INPUTS = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """Facts about a run's data that are needed to use its model on other audio.

    Args:
        classes: Class names, in the order of the model's outputs.
        normaliser: Fitted on the training split.
        longest_seconds: Length of the longest clip or segment of all splits.
        typical_seconds: Median length of the training clips or segments, without those of classes
            that mean the absence of all others (`is_nothing`).
        multi_label: Whether a clip may have several classes.
        manifest_hash: SHA-256 of the manifest (`Prepared.hash`).
        samples_hash: SHA-256 of the clips' samples (`Prepared.samples_hash`).
        temperature: Temperature of the probabilities; fitted on the validation split after
            training, 1 before (`spaudio.training.temperature`).
        alignment: Statistics of the embeddings of training clips, from the end of training; None
            before it and for several labels per clip.
        silent_ok: Whether silence may be a clip.
        lowest_rate: Lowest sample rate of a training clip, in Hz; 0 in runs that did not save it.
    """

    classes: tuple[str, ...]
    normaliser: Normaliser
    longest_seconds: float
    typical_seconds: float
    multi_label: bool = False
    manifest_hash: str = ""
    samples_hash: str = ""
    temperature: float = 1.0
    alignment: Alignment | None = None
    silent_ok: bool = False
    lowest_rate: int = 0

    def save(self, run: Path) -> None:
        """Writes them to the run's folder; float32 values are restored exactly."""
        normaliser = self.normaliser
        statistics: dict[str, Any] = (
            {"rms": normaliser.rms}
            if isinstance(normaliser, LevelNormaliser)
            else {
                "mean": normaliser.mean.tolist(),
                "std": normaliser.std.tolist(),
                "pauses": normaliser.pauses and vars(normaliser.pauses),
                "quietest": normaliser.quietest,
            }
        )
        content: dict[str, Any] = {
            "classes": list(self.classes),
            "normalise": normaliser.mode,
            **statistics,
            "longest_seconds": self.longest_seconds,
            "typical_seconds": self.typical_seconds,
            "multi_label": self.multi_label,
            "manifest_sha256": self.manifest_hash,
            "samples_sha256": self.samples_hash,
            "temperature": self.temperature,
            "silent_ok": self.silent_ok,
            "lowest_rate": self.lowest_rate,
        }
        if (found := self.alignment) is not None:
            content["embeddings"] = {"mean": found.mean.tolist(), "std": found.std.tolist()}
        write_json(run / INPUTS, content)

    @classmethod
    def load(cls, run: Path) -> Inputs:
        """Reads them from a run's folder.

        Raises:
            CheckpointError: If the file is missing or damaged.
        """
        try:
            content = read_json(run / INPUTS)
        except FileNotFoundError as error:
            saved = (run / WEIGHTS).is_file() and not (run / HASHES).is_file()  # no checkpoint
            raise CheckpointError(
                f"{run} is a saved model, but its {INPUTS} is missing; fetch or save it again"
                if saved
                else f"{run} holds no {INPUTS}, the normalisation of its model's input; name the "
                "folder of a run of an audio recipe"
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {run / INPUTS}: {error}") from error
        try:
            classes = tuple(str(name) for name in content["classes"])
            names = ("longest_seconds", "typical_seconds", "temperature")
            longest, typical, temperature = (float(content[name]) for name in names)
            for name, value in zip(names, (longest, typical, temperature), strict=True):
                _check_positive(name, value)
            return cls(
                classes,
                _normaliser(content),
                longest,
                typical,
                bool(content["multi_label"]),
                str(content["manifest_sha256"]),
                str(content["samples_sha256"]),
                temperature,
                _alignment(content),
                bool(content["silent_ok"]),
                int(content.get("lowest_rate", 0)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{run / INPUTS} is damaged ({type(error).__name__}: {error}); run the recipe again"
            ) from error


def refuse_changed_data(run: Path, now: Inputs, manifest: Path) -> None:
    """Checks that a run is resumed on the data that it started with.

    Args:
        run: The run's folder.
        now: Facts about the data as they are now.
        manifest: The manifest as it is now; the earlier one is kept beside it.

    Raises:
        CheckpointError: If classes, clips, labels, splits or samples have changed; names some.
    """
    before = Inputs.load(run)
    if (before.classes, before.manifest_hash, before.samples_hash) == (
        now.classes, now.manifest_hash, now.samples_hash,
    ):  # fmt: skip
        return
    changes = _changes("classes", before.classes, now.classes)
    earlier = previous_manifest(manifest, before.manifest_hash)
    if before.manifest_hash == now.manifest_hash:
        changes.append("other samples in files of the same names")
    elif earlier.is_file():
        old, new = ({c.path: c for c in read_manifest(file)} for file in (earlier, manifest))
        changes += _changes("clips", old, new)
        both = [path for path in old if path in new and old[path] != new[path]]
        changes += [f"clips that have changed: {some(both)}"] if both else []
    raise CheckpointError(
        f"the data of {run} have changed since it began ({'; '.join(changes) or 'other clips'}). "
        "Restore them to continue it, or start a new run"
    )


def _changes(what: str, before: Collection[str], now: Collection[str]) -> list[str]:
    found = {
        f"{what} that are gone": [name for name in before if name not in now],
        f"new {what}": [name for name in now if name not in before],
    }
    return [f"{change}: {some(names)}" for change, names in found.items() if names]


def _normaliser(content: dict[str, Any]) -> Normaliser:
    """Builds the normaliser.

    Raises:
        ValueError: If its numbers would give tokens that are not finite, or the mode is unknown.
    """
    mode = content["normalise"]
    if mode not in NORMALISATIONS:
        raise ValueError(f"normalise is {mode!r}, not one of {NORMALISATIONS}")
    if "rms" in content:
        _check_positive("rms", np.float32(content["rms"]))
        return LevelNormaliser(mode, float(content["rms"]))
    quietest = content.get("quietest")  # runs of earlier versions did not save it
    if quietest is not None:
        _check_positive("quietest", np.float32(quietest))
    return BandNormaliser(mode, *_mean_and_std(content), _pauses(content.get("pauses")), quietest)


def _pauses(content: dict[str, list[int]] | None) -> Pauses | None:
    """Returns the pauses of the training clips; None for a run that does not cut pauses.

    Raises:
        ValueError: If they are not two numbers of frames each.
    """
    if content is None:
        return None
    (a, b), (c, d) = content["longest"], content["usual"]
    if not 0 <= c <= a or not 0 <= d <= b:
        raise ValueError(f"the pauses {content} are not two numbers of frames each")
    return Pauses((a, b), (c, d))


def _alignment(content: dict[str, Any]) -> Alignment | None:
    """Builds the alignment, which a run has once it is finished.

    Raises:
        ValueError: If its numbers would give embeddings that are not finite.
    """
    if "embeddings" not in content:
        return None
    return Alignment(*map(torch.from_numpy, _mean_and_std(content["embeddings"])))


def _mean_and_std(content: dict[str, Any]) -> tuple[Values, Values]:
    mean, std = (np.asarray(content[key], dtype=np.float32) for key in ("mean", "std"))
    if mean.ndim != 1 or mean.shape != std.shape:
        raise ValueError(f"mean and std have shapes {mean.shape} and {std.shape}")
    if not np.isfinite(mean).all():
        raise ValueError("mean has values that are not finite")
    _check_positive("std", std)
    return mean, std


def _check_positive(name: str, value: Any) -> None:
    if not (np.isfinite(value) & (value > 0)).all():
        raise ValueError(f"{name} has values that are not positive")
