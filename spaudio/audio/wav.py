"""Writes WAV files."""

import io
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray


def write_wav(
    path: Path, waveform: NDArray[np.float32], sample_rate: int, subtype: str = "FLOAT"
) -> Path:
    """Writes a WAV file, and the folders that it is in; returns its path.

    It is encoded in memory: if a disk is full, libsndfile's error does not say so, but Python's
    does.

    Args:
        path: The file.
        waveform: (samples,).
        sample_rate: In Hz.
        subtype: Type of the samples: ``"FLOAT"``, which keeps them as they are, or ``"PCM_16"``.

    Raises:
        OSError: If it cannot be written, for example because the disk is full.
    """
    content = io.BytesIO()
    soundfile.write(content, waveform, sample_rate, subtype, format="WAV")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getbuffer())
    return path
