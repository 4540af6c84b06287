"""What a run's model expects of its input beside the settings: kept with the run as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spaudio.audio.manifest import write_atomic
from spaudio.errors import CheckpointError
from spaudio.recipe.data import RecipeData
from spaudio.tokens.normalise import Normaliser

FILE = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """What was measured on a run's data and is needed to use its model on other audio.

    Args:
        classes: Class names, in the order of the model's outputs.
        normaliser: Fitted on the training split.
        longest_seconds: Longest clip of the run's data; a longer one is new to the model.
    """

    classes: tuple[str, ...]
    normaliser: Normaliser
    longest_seconds: float

    @classmethod
    def of(cls, data: RecipeData) -> Inputs:
        """Gathers them from a run's data."""
        longest = max(clip.seconds for clip in data.clips)
        return cls(data.classes, data.normaliser, longest)

    def save(self, run: Path) -> None:
        """Writes them into the run's folder; float32 values come back to the bit."""
        content = {
            "classes": list(self.classes),
            "normalise": self.normaliser.mode,
            "mean": self.normaliser.mean.tolist(),
            "std": self.normaliser.std.tolist(),
            "longest_seconds": self.longest_seconds,
        }
        write_atomic(run / FILE, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, run: Path) -> Inputs:
        """Reads them from a run's folder.

        Raises:
            CheckpointError: If the run was made before they were kept, or the file is damaged.
        """
        try:
            content = json.loads((run / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{run} holds no {FILE}, the statistics its model's input is normalised by: either "
                "it is not a run's folder or the run was made before they were kept. Run the "
                "recipe again with the settings of its config.yaml"
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {run / FILE}: {error}") from error
        try:
            mean, std = (np.asarray(content[key], dtype=np.float32) for key in ("mean", "std"))
            normaliser = Normaliser(str(content["normalise"]), mean, std)
            classes = tuple(str(name) for name in content["classes"])
            return cls(classes, normaliser, float(content["longest_seconds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{run / FILE} is damaged ({type(error).__name__}: {error}); run the recipe again"
            ) from error
