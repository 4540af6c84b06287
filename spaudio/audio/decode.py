"""Decodes audio files to mono float32 waveforms; errors name the file and the reason."""

import hashlib
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spaudio.audio.container import CONTAINERS, fault, is_unknown
from spaudio.audio.mpeg import MpegSound, mpeg_sound
from spaudio.errors import AudioError, ConfigError

Waveform = NDArray[np.float32]  # (samples,), mono, full scale at 1.0

#: Versions of what decodes and resamples. Results that were kept with others are computed again.
#: Raise the first with any change of this module, or of those it calls, to the samples.
DECODER = {
    "decoder": 6,
    "libsndfile": soundfile.__libsndfile_version__,
    "soxr": soxr.__version__,
}
#: A clip whose samples vary (peak to peak) by less than this is silent. The limit is just above one
#: step of 16-bit audio, so that mere dither is silent. A constant offset does not matter.
SILENCE_DBFS = -90.0
#: Rates outside this range are errors in the header: 1 kHz holds no audible band, and no format in
#: use exceeds 768 kHz.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000
#: Limits of a clip, which is decoded into memory whole: an hour, and an hour's samples at 48 kHz,
#: because a few hundred kilobytes of FLAC can hold hours of a constant at an unusual rate.
MAX_SECONDS = 3600.0
MAX_SAMPLES = 3600 * 48_000
#: Channels are averaged, which makes sense for loudspeakers (7.1 at most) but not for microphone
#: arrays.
MAX_CHANNELS = 8
#: Larger samples (beyond 32-bit integers) are garbage; their power would overflow float32.
MAX_AMPLITUDE = 2.0**31
#: An array does not declare its scale; larger samples in it are integers that were cast. In files
#: of floating-point samples, whose writer declares the scale, they are kept, with a warning.
MAX_ARRAY_AMPLITUDE = 100.0

#: Extensions of formats that libsndfile does not read but other decoders do.
FOREIGN = frozenset(
    ("m4a", "mp4", "aac", "wma", "amr", "ape", "wv", "webm", "3gp", "mka", "m4b", "mkv", "mov")
)
_SILENCE = 10 ** (SILENCE_DBFS / 20)
_MPEG = ("MP3", "MPEG")
_OF_SYSTEM = 2  # libsndfile's code for an error of the operating system
_BLOCK = 1 << 16  # frames per read, so that memory depends on the file's content, not its header
_DATA_SIZE = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.M)


def is_passing(error: AudioError) -> bool:
    """Whether an error may be transient: the system, not the decoder, failed to read the file."""
    cause = error.__cause__
    return isinstance(cause, OSError) or getattr(cause, "code", None) == _OF_SYSTEM


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file declares.

    Attributes:
        seconds: Duration.
        sample_rate: In Hz.
        channels: Number of channels.
        format: Container, by libsndfile's name, such as ``"WAV"``.
    """

    seconds: float
    sample_rate: int
    channels: int
    format: str


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Reads only the header; unlike `decode`, does not check it against the content.

    Args:
        path: Audio file.

    Returns:
        Duration, rate, channels and container, as the header declares them. If the first frame of
        an MP3 does not declare a length, the duration is the sum of its frames: libsndfile would
        guess it from the size of the file, of which a picture in a tag may be a large part.

    Raises:
        AudioError: If the file is missing, empty, unreadable or not audio, or if its header already
            shows that `decode` would refuse it: by its sample rate, channels or container.
    """
    with _open(path) as file:
        held = _mpeg_sound(file)
        seconds = file.frames / file.samplerate if held is None else held.seconds
        return AudioInfo(seconds, file.samplerate, file.channels, file.format)


def read_rate(path: str | os.PathLike[str]) -> int:
    """Returns the sample rate of a file in Hz; its sound is not read.

    Raises:
        AudioError: If the file cannot be opened.
    """
    with _open(path) as file:
        return int(file.samplerate)


def decode(path: str | os.PathLike[str], *, silent_ok: bool = False) -> tuple[Waveform, int]:
    """Decodes and checks a whole file.

    Args:
        path: Audio file, in any format that libsndfile reads.
        silent_ok: Accept silent files.

    Returns:
        The waveform, shape (samples,), channels averaged, full scale at 1.0; and its rate in Hz.

    Raises:
        AudioError: If the file is missing, empty, unreadable, not audio, truncated, longer than
            `MAX_SECONDS` or `MAX_SAMPLES`, a single sample, silent (see `SILENCE_DBFS`), an MP3 of
            which the decoder reads only a part, holds samples that are not finite or beyond
            `MAX_AMPLITUDE`, declares a sample rate out of range or more than `MAX_CHANNELS`, or is
            in a container whose end cannot be checked (see `spaudio.audio.container.CONTAINERS`).
    """
    with _open(path, "check the path or prepare again") as file:
        blocks = list(_checked_blocks(file, silent_ok=silent_ok))
        return np.concatenate(blocks), int(file.samplerate)


def load_audio(
    path: str | os.PathLike[str], sample_rate: int | None = None, *, silent_ok: bool = False
) -> Waveform:
    """Decodes a file to mono and resamples it (soxr, HQ).

    Args:
        path: Audio file, in any format that libsndfile reads.
        sample_rate: Rate wanted in Hz; None keeps the file's own.
        silent_ok: Accept silent files.

    Returns:
        Waveform, shape (samples,), float32, full scale at 1.0.

    Raises:
        AudioError: For the reasons of `decode`, or if no sample is left after resampling.
        ConfigError: If ``sample_rate`` is out of range.
    """
    waveform, rate = decode(path, silent_ok=silent_ok)
    return waveform if sample_rate is None else resample(waveform, rate, sample_rate, path)


def resample(
    waveform: Waveform, rate: int, sample_rate: int, path: str | os.PathLike[str]
) -> Waveform:
    """Resamples a waveform (soxr, HQ).

    Args:
        waveform: Shape (samples,).
        rate: Its rate in Hz.
        sample_rate: Rate wanted in Hz.
        path: Its file, for the error message.

    Raises:
        AudioError: If no sample is left.
        ConfigError: If ``sample_rate`` is out of range.
    """
    check_rate(sample_rate)
    if sample_rate == rate:
        return waveform
    resampled: Waveform = soxr.resample(waveform, rate, sample_rate, quality="HQ")
    if not len(resampled):
        raise _too_short(path, rate, sample_rate)
    return resampled


def check_array(values: object, sample_rate: int, *, silent_ok: bool = False) -> Waveform:
    """Checks a waveform given as an array, as `decode` checks that of a file.

    Args:
        values: (samples,), (1, samples) or (samples, 1), mono, floating-point with full scale at
            1.0; an array or CPU tensor.
        sample_rate: Its rate in Hz.
        silent_ok: If true, silence is accepted.

    Returns:
        The waveform as float32.

    Raises:
        AudioError: If it has another shape or type, is too short or silent, or holds samples that
            are not finite or beyond `MAX_ARRAY_AMPLITUDE`.
        ConfigError: If ``sample_rate`` is out of range.
    """
    check_rate(sample_rate)
    waveform = check_samples(values)
    if len(waveform) < 2:
        raise AudioError(f"an array of {len(waveform)} samples; at least 2 are needed")
    if not silent_ok and is_silent(waveform):
        raise AudioError(
            f"the array is silent (varies by less than {SILENCE_DBFS:g} dBFS); it cannot be "
            "classified"
        )
    return waveform


def check_rate(sample_rate: int, name: str = "sample_rate") -> None:
    """Raises ConfigError, with the name given, if a rate in Hz is no number, or out of range."""
    number = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool)
    if not number or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise ConfigError(
            f"{name}={sample_rate!r}; expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        )


def check_samples(values: object) -> Waveform:
    """Checks samples as `check_array` does, except that they may be silent, or few."""
    try:
        given = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor on a GPU
        raise AudioError(
            f"a {type(values).__name__} cannot be converted to an array of samples ({error}); give "
            "a NumPy array or a CPU tensor"
        ) from error
    if given.ndim == 2 and 1 in given.shape:
        given = given.reshape(-1)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.floating):
        mean = f".mean(axis={np.argmin(given.shape)})" if given.ndim == 2 else ""
        scale = f" / {2 ** (8 * given.itemsize - 1)}" if given.dtype in (np.int16, np.int32) else ""
        remedy = f"; give x{mean}{scale}" if mean or scale else ""
        raise AudioError(
            f"an array of shape {given.shape} and type {given.dtype}; expected (samples,), mono, "
            f"floating-point with full scale at 1.0{remedy}"
        )
    if not np.isfinite(given).all():
        wrong = np.flatnonzero(~np.isfinite(given))
        raise AudioError(
            f"{len(wrong):,} of {given.size:,} samples of the array are not finite, the first at "
            f"index {wrong[0]}; replace them, for example with 0"
        )
    if (peak := np.abs(given).max(initial=0)) > MAX_ARRAY_AMPLITUDE:
        raise AudioError(
            f"the array holds samples as large as {peak:.3g}; expected full scale at 1.0: for "
            "16-bit samples give x / 32768"
        )
    return given.astype(np.float32)


def is_silent(waveform: Waveform) -> bool:
    """Whether samples (samples,) vary by less than `SILENCE_DBFS`."""
    return bool(np.ptp(waveform) < _SILENCE)


def hash_samples(waveform: Waveform, rate: int) -> str:
    """Returns a hash of decoded samples (samples,) and their rate in Hz, whatever the container."""
    # Floating-point files may hold negative zeros, which are equal to zeros but have other bytes.
    return hashlib.blake2b((waveform + 0.0).data, key=b"%d" % rate, digest_size=16).hexdigest()


def stream_audio(
    path: str | os.PathLike[str], sample_rate: int, *, silent_ok: bool = False
) -> Iterator[Waveform]:
    """Decodes and resamples a file of any length piece by piece.

    Joined, the pieces are bit-identical to what `load_audio` returns. The file is known to be good
    only after the last piece: discard what was computed from earlier pieces if an error follows.

    Args:
        path: Audio file, in any format that libsndfile reads.
        sample_rate: Rate wanted in Hz.
        silent_ok: Accept silent files.

    Yields:
        Mono waveforms, shape (samples,), float32, full scale at 1.0.

    Raises:
        AudioError: For the reasons of `load_audio`, except that no file is too long.
    """
    with _open(path) as file:
        blocks = _checked_blocks(file, any_length=True, silent_ok=silent_ok)
        rate, samples = int(file.samplerate), 0
        for piece in resample_stream(blocks, rate, sample_rate):
            samples += len(piece)
            yield piece
        if not samples:
            raise _too_short(path, rate, sample_rate)


def resample_stream(blocks: Iterable[Waveform], rate: int, sample_rate: int) -> Iterator[Waveform]:
    """Resamples blocks (samples,) as they come (soxr, HQ), from ``rate`` to ``sample_rate`` Hz."""
    if rate == sample_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in chain(blocks, [None]):
        last = block is None
        piece = resampler.resample_chunk(np.zeros(0, np.float32) if last else block, last=last)
        if len(piece):
            yield piece


def _too_short(path: str | os.PathLike[str], rate: int, sample_rate: int) -> AudioError:
    return AudioError(
        f"{path}: too short: its samples at {rate} Hz leave none at {sample_rate} Hz; "
        "leave the clip out"
    )


def _open(path: str | os.PathLike[str], if_missing: str = "check the path") -> Any:
    """Opens a file with soundfile (which ships no types) after the checks that need no decoder."""
    path = Path(path)
    name = os.fspath(path)
    try:
        # The decoder, tables and reports need names in UTF-8.
        name.encode("utf-8")
        status = path.stat()
        if not S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            raise AudioError(f"{path}: not a file; remove it or leave it out")
        if status.st_size == 0:
            raise AudioError(f"{path}: empty file (0 bytes); fetch it again or leave it out")
        with path.open("rb"):
            pass
        file = soundfile.SoundFile(name)
    except FileNotFoundError as error:
        raise AudioError(f"{path}: no such file; {if_missing}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeEncodeError as error:
        raise AudioError(
            f"{path}: its name is not UTF-8; rename it, or set LC_ALL=C.UTF-8"
        ) from error
    # soundfile raises TypeError for `.raw`, which has no header with rate and channels.
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(
            f"{path}: not audio that can be decoded ({_reason(error)}){_conversion(path)}"
        ) from error
    if refusal := _refusal(file):
        file.close()
        raise AudioError(f"{path}: {refusal}")
    return file


def _unreadable(path: str | os.PathLike[str], error: OSError) -> AudioError:
    reason = (error.strerror or str(error)).lower()
    return AudioError(f"{path}: cannot be read ({reason}); make it readable or leave it out")


def _refusal(file: Any) -> str | None:
    """Returns why an open file is refused, judged by its header, or None."""
    if file.format not in CONTAINERS:
        return f"a container that does not tell where it ends ({file.format}); convert it to FLAC"
    lowest, highest = MIN_SAMPLE_RATE, MAX_SAMPLE_RATE
    if not lowest <= file.samplerate <= highest:
        return f"sample rate of {file.samplerate} Hz, out of range; expected {lowest} to {highest}"
    if file.format == "FLAC" and file.frames == np.iinfo(np.int64).max:
        return (
            "its header does not give its length, as in a FLAC file that was written to a pipe; "
            "write it again: ffmpeg -i OLD.flac NEW.flac"
        )
    if not 1 <= file.channels <= MAX_CHANNELS:
        return f"{file.channels} channels; at most {MAX_CHANNELS} can be averaged; export fewer"
    return None


def _checked_blocks(
    file: Any, *, any_length: bool = False, silent_ok: bool = False
) -> Iterator[Waveform]:
    """Yields the file as mono blocks; errors that need the whole file come after the last one."""
    path = file.name
    frames, bad, lowest, highest = 0, 0, math.inf, -math.inf
    for block in _read_blocks(file, any_length):
        frames += len(block)
        low, high = float(block.min()), float(block.max())
        if not (math.isfinite(low) and math.isfinite(high)):  # NaN, if a sample is
            bad += int(np.count_nonzero(~np.isfinite(block)))
        lowest, highest = min(lowest, low), max(highest, high)
        if not bad:  # otherwise NaN or infinity would reach the model before the error
            yield block
    if frames == 0:
        raise AudioError(f"{path}: no samples; leave the clip out")
    held = _mpeg_sound(file)
    try:
        # If an MPEG file does not declare its length, the decoder guesses it from the size.
        unread = _unread(file, frames) if held is None or held.declared else None
    except OSError as error:
        raise _unreadable(path, error) from error
    if held and abs(held.seconds * file.samplerate - frames) > _mpeg_slack(frames):
        raise AudioError(
            f"{path}: the decoder reads {frames / file.samplerate:.1f} s, but the file holds "
            f"{held.seconds:.1f} s: its first frame does not declare the length of the whole file; "
            "write it again: ffmpeg -i OLD.mp3 NEW.flac"
        )
    if unread:
        raise AudioError(f"{path}: {unread}")
    if frames == 1:
        raise AudioError(f"{path}: a single sample; leave the clip out")
    if bad:
        raise AudioError(f"{path}: {bad} of {frames} samples are not finite; export it again")
    if (peak := max(-lowest, highest)) > MAX_AMPLITUDE:
        raise AudioError(
            f"{path}: samples as large as {peak:.3g} (1 is full scale); export it again"
        )
    if not silent_ok and highest - lowest < _SILENCE:
        then = "it cannot be classified" if any_length else "leave the clip out"
        averaged = " after averaging its channels, which may cancel" if file.channels > 1 else ""
        raise AudioError(
            f"{path}: silent (samples vary by less than {SILENCE_DBFS:g} dBFS{averaged}); {then}"
        )


def _read_blocks(file: Any, any_length: bool) -> Iterator[Waveform]:
    frames = 0
    most = math.inf if any_length else min(MAX_SECONDS * file.samplerate, MAX_SAMPLES)
    while True:
        try:
            block = file.read(_BLOCK, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(
                f"{file.name}: damaged after {frames} frames ({_reason(error)}); fetch it again"
            ) from error
        if not len(block):
            return
        frames += len(block)
        if frames > most:
            raise AudioError(
                f"{file.name}: longer than {MAX_SECONDS:g} s or {MAX_SAMPLES} samples; cut it into "
                "clips"
            )
        if file.channels == 1:  # the mean would be the same, but take as long as decoding
            yield block[:, 0]
            continue
        # The sum of two finite channels can overflow; such samples are refused later.
        with np.errstate(over="ignore", invalid="ignore"):
            yield block.mean(axis=1, dtype=np.float32)


def _mpeg_sound(file: Any) -> MpegSound | None:
    """Returns what `mpeg_sound` does of an open file; None for other containers."""
    try:
        return mpeg_sound(Path(file.name)) if file.format in _MPEG else None
    except OSError as error:
        raise _unreadable(file.name, error) from error


def _unread(file: Any, frames: int) -> str | None:
    """Returns why the samples that were read are not all that a file held, or None."""
    for declared, held in _DATA_SIZE.findall(file.extra_info):
        if int(held) < int(declared) and not is_unknown(int(declared)):
            return (
                f"truncated (header declares {declared} bytes of samples, file holds {held}); "
                "fetch it again"
            )
    slack = _mpeg_slack(file.frames) if file.format in _MPEG else 0
    if frames + slack < file.frames < np.iinfo(np.int64).max:
        return (
            f"truncated (header declares {file.frames} frames, file holds {frames}); fetch it again"
        )
    return fault(Path(file.name), file.format)


def _mpeg_slack(frames: int) -> int:
    """Returns by how many frames an MPEG file may differ from what its headers say."""
    return 4608 + frames // 20


def _conversion(path: Path) -> str:
    """Returns how to convert a file whose extension is that of a format for other decoders."""
    if path.suffix[1:].lower() not in FOREIGN:
        return ""
    # Without its folder, as reports show this message.
    command = shlex.join(["ffmpeg", "-i", path.name, path.with_suffix(".flac").name])
    return f"; convert it in its folder (then remove the original from a dataset): {command}"


def _reason(error: Exception) -> str:
    """Returns the decoder's message without the path, which ours names already."""
    words = str(getattr(error, "error_string", error)).rstrip(".")
    # libsndfile's message for an MP3 without a single frame.
    return "no frame of audio found" if words.startswith("File does not exist") else words
