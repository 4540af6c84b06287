"""A WAV file that cannot be written says why."""

import errno
import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spaudio.audio.wav import write_wav


def test_samples_are_kept_and_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    write_wav(tmp_path / "deeper" / "a.wav", wave, 8000)
    read, rate = soundfile.read(tmp_path / "deeper" / "a.wav", dtype="float32")
    assert rate == 8000
    np.testing.assert_array_equal(read, wave)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            write_wav(tmp_path / "b.wav", wave, 8000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
