"""The clips that all sides train on: the digits of ``recipes/fsdd/recordings``, 8 kHz."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 8000
CLASSES = 10
RECIPE = Path(__file__).parents[3] / "recipes" / "fsdd"


def list_clips(*, test: bool = False) -> list[tuple[Path, int]]:
    """Returns path and digit of each clip of the official training split, or of the test split.

    The first five recordings of each digit by each speaker are the test split.
    """
    files = sorted((RECIPE / "recordings").glob("*.flac"))
    return [
        (file, int(file.name[0])) for file in files if (int(file.stem.split("_")[2]) < 5) == test
    ]


def read_clip(path: Path) -> npt.NDArray[np.float32]:
    """Returns the waveform (samples,) of a clip."""
    samples: npt.NDArray[np.float32] = soundfile.read(path, dtype="float32")[0]
    return samples
