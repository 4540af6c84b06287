"""Reads sounds that are given to a model: files of any format, or arrays of samples."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spaudio.audio.decode import Waveform, check_array, resample, stream_audio
from spaudio.errors import AudioError, ConfigError

Audio = str | os.PathLike[str] | NDArray[np.floating] | Tensor
ARRAY = Path("<array>")  # the file name in predictions of arrays


def read_sound(
    audio: Audio, sample_rate: int | None, model_rate: int, *, silent_ok: bool
) -> Iterable[Waveform]:
    """Returns a sound in consecutive pieces, mono waveforms (samples,) at the model's rate.

    Args:
        audio: A file, or a mono waveform (samples,).
        sample_rate: Rate of a waveform, in Hz.
        model_rate: Rate of the pieces, in Hz.
        silent_ok: Silence can be used.

    Raises:
        AudioError: If it cannot be used.
        ConfigError: If the rate of a waveform is missing or out of range.
    """
    if isinstance(audio, str | os.PathLike):
        return stream_audio(audio, model_rate, silent_ok=silent_ok)
    if not hasattr(audio, "__array__"):
        raise AudioError(
            f"a sound of type {type(audio).__name__}; expected the path of a file, or an array "
            "or tensor of samples"
        )
    if sample_rate is None:
        raise ConfigError("sample_rate= is required with arrays; give their rate in Hz")
    wave = check_array(audio, sample_rate, silent_ok=silent_ok)
    return [resample(wave, sample_rate, model_rate, ARRAY)]


def path_of(audio: Audio) -> Path:
    """Returns the file name of a sound in predictions."""
    return Path(audio) if isinstance(audio, str | os.PathLike) else ARRAY


@contextmanager
def named_sound(audio: Audio) -> Iterator[None]:
    """Names the file in an error of the front-end, which has only its samples."""
    try:
        yield
    except AudioError as error:
        if str(path_of(audio)) in str(error) or not isinstance(audio, str | os.PathLike):
            raise
        raise AudioError(f"{audio}: {error}") from error
