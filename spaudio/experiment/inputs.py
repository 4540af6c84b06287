"""Class names and normalisation of a run, which its model needs besides the settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spaudio.errors import CheckpointError
from spaudio.io.atomic import write_atomic
from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser, Normaliser

FILE = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """Facts about a run's data that are needed to use its model on other audio.

    Args:
        classes: Class names, in the order of the model's outputs.
        normaliser: Fitted on the training split.
        longest_seconds: Length of the longest clip or segment that the model was trained on.
        multi_label: Whether a clip may have several classes.
    """

    classes: tuple[str, ...]
    normaliser: Normaliser
    longest_seconds: float
    multi_label: bool = False

    def save(self, run: Path) -> None:
        """Writes them to the run's folder; float32 values are restored exactly."""
        normaliser = self.normaliser
        statistics: dict[str, Any] = (
            {"rms": normaliser.rms}
            if isinstance(normaliser, LevelNormaliser)
            else {"mean": normaliser.mean.tolist(), "std": normaliser.std.tolist()}
        )
        content = {
            "classes": list(self.classes),
            "normalise": normaliser.mode,
            **statistics,
            "longest_seconds": self.longest_seconds,
            "multi_label": self.multi_label,
        }
        write_atomic(run / FILE, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, run: Path) -> Inputs:
        """Reads them from a run's folder.

        Raises:
            CheckpointError: If the file is missing or damaged.
        """
        try:
            content = json.loads((run / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{run} holds no {FILE}, the normalisation of its model's input; "
                "name the folder of a run of an audio recipe"
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {run / FILE}: {error}") from error
        try:
            classes = tuple(str(name) for name in content["classes"])
            longest, several = float(content["longest_seconds"]), bool(content["multi_label"])
            return cls(classes, _normaliser(content), longest, several)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{run / FILE} is damaged ({type(error).__name__}: {error}); run the recipe again"
            ) from error


def _normaliser(content: dict[str, Any]) -> Normaliser:
    mode = str(content["normalise"])
    if "rms" in content:
        return LevelNormaliser(mode, float(content["rms"]))
    mean, std = (np.asarray(content[key], dtype=np.float32) for key in ("mean", "std"))
    return BandNormaliser(mode, mean, std)
