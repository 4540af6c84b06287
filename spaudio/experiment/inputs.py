"""What a run's model needs besides its settings, measured on its data: a JSON file."""

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
    """What was measured on a run's data and is needed to use its model on other audio.

    Args:
        classes: Class names, in the order of the model's outputs.
        normaliser: Fitted on the training split.
        longest_seconds: Longest clip or segment of the run's data; a longer one is new to the
            model.
        multi_label: A clip may have several classes.
    """

    classes: tuple[str, ...]
    normaliser: Normaliser
    longest_seconds: float
    multi_label: bool = False

    def save(self, run: Path) -> None:
        """Writes them into the run's folder; float32 values come back to the bit."""
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
                f"{run} holds no {FILE}, the statistics that its model's input is normalised by; "
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
