"""What must hold for any input of the package: it is refused with a named error, or valid.

Each target takes bytes and a scratch folder. It returns if the package refuses them with an error
of its own, and raises AssertionError, or what the package raised, if not.
"""

import json
import re
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import soundfile

from spaudio.audio.container import CONTAINERS
from spaudio.audio.decode import MAX_AMPLITUDE, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, decode
from spaudio.audio.manifest import Clip, manifest_hash, read_manifest, write_manifest
from spaudio.errors import AudioError, ConfigError, DataError, SpaudioError
from spaudio.io.unpack import unpack
from tests import RECIPES
from tests.fixtures.tiny_audio import RATE, tone

T = TypeVar("T")

RUN_FILES = ("config.yaml", "inputs.json", "report.json", "log.jsonl")
FOLDER = RECIPES / "folder"


def audio(content: bytes, scratch: Path) -> None:
    """A file that is decoded has finite samples that differ, at a plausible rate."""
    path = scratch / "clip"
    path.write_bytes(content)
    refusal, found = _try(lambda: decode(path), AudioError)
    if found is None:
        assert refusal.startswith(f"{path}: ")
        return
    waveform, rate = found
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert len(waveform) > 1
    assert np.isfinite(waveform).all()
    assert 0 < np.ptp(waveform) <= 2 * MAX_AMPLITUDE
    assert MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE


def manifest(content: bytes, scratch: Path) -> None:
    """A manifest that is read names files below its root, and comes back when written."""
    path = scratch / "manifest.jsonl"
    path.write_bytes(content)
    refusal, clips = _try(lambda: read_manifest(path), DataError)
    if clips is None:
        assert str(path) in refusal
        return
    for clip in clips:
        place = (scratch / clip.path).resolve()
        assert place.is_relative_to(scratch.resolve())
        assert not place.is_file() or place == path.resolve()
        assert float(clip.seconds) > 0
    write_manifest(path, clips)
    assert read_manifest(path) == clips
    assert manifest_hash(read_manifest(path)) == manifest_hash(clips)


def archive(content: bytes, scratch: Path) -> None:
    """An archive that is unpacked writes only below its folder, and no more than allowed."""
    home = scratch / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    path = home / "archive"
    path.write_bytes(content)
    with patch.multiple("spaudio.io.unpack", MAX_BYTES=1 << 20, MAX_FILES=50):
        refusal, out = _try(lambda: unpack(path, home / "out"), DataError)
    if out is None:
        assert str(path) in refusal
        assert list(home.iterdir()) == [path]
        return
    assert {p.name for p in home.iterdir()} == {"archive", "out"}
    found = list((home / "out").rglob("*"))
    assert all((p.is_dir() or p.is_file()) and not p.is_symlink() for p in found)
    assert sum(p.stat().st_size for p in found if p.is_file()) <= 1 << 20


def settings(content: bytes, scratch: Path) -> None:
    """Words of a command line are either settings of the recipe or refused."""
    from spaudio.experiment.compose import compose  # imports torch, which the others do not need

    words = content.decode("utf-8", "replace").split("\n")[:4]
    given = [word for word in words if not word.startswith("-")]
    refusal, _ = _try(lambda: compose(FOLDER, given), ConfigError)
    assert "\n" not in refusal


def run(content: bytes, scratch: Path) -> None:
    """A damaged run folder is refused, or its predictions are finite.

    The first line names the file that the rest replaces.
    """
    from spaudio.inference.predict import Predictor
    from spaudio.report.records import read_records, write_records

    folder, files = _run_folder(scratch)
    name, _, damaged = content.partition(b"\n")
    place = name.decode("utf-8", "replace")
    if place not in files:
        return
    for file, good in files.items():
        (folder / file).write_bytes(damaged if file == place else good)
    refusal, predictor = _try(lambda: Predictor(folder), SpaudioError)
    assert "\n" not in refusal
    if predictor is not None:
        wave = np.random.default_rng(0).normal(size=800).astype(np.float32)
        (scratch / "clip.wav").unlink(missing_ok=True)
        soundfile.write(scratch / "clip.wav", 0.1 * wave, RATE)
        refusal, one = _try(lambda: predictor(scratch / "clip.wav"), SpaudioError)
        assert one is None or np.isfinite(one.probabilities).all()
    refusal, records = _try(lambda: read_records([folder]), DataError)
    assert "\n" not in refusal
    if records and records[0].log:
        write_records(records, scratch / "runs.csv")
        (again,) = read_records([scratch / "runs.csv"])
        assert again.facts == records[0].facts


def cache(content: bytes, scratch: Path) -> None:
    """A damaged cache lacks a clip, is made anew, or serves the clip's own frames.

    The first line names the file that the rest replaces.
    """
    from spaudio.tokens.cache import FrameCache

    def open_cache() -> FrameCache:
        return FrameCache(scratch / "cache", {}, RATE, lambda x: x.reshape(-1, 8), np.asarray)

    clip = scratch / "kept.wav"
    if not clip.is_file():
        soundfile.write(clip, tone(1, np.random.default_rng(0), 0.1)[:800], RATE, subtype="FLOAT")
        open_cache().fill([clip])
    [folder] = (path for path in (scratch / "cache").iterdir() if path.is_dir())
    good = {file: (scratch / file) for file in ("index.jsonl", "frames.bin")}
    for file, copy in good.items():
        if not copy.is_file():
            shutil.copy(folder / file, copy)
    name, _, damaged = content.partition(b"\n")
    place = name.decode("utf-8", "replace")
    if place not in good:
        return
    for file, copy in good.items():
        (folder / file).write_bytes(damaged if file == place else copy.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is said that the cache is damaged
        opened = open_cache()
        if opened.lacks(clip, clip.stat()):
            opened.fill([clip])
        refusal, frames = _try(lambda: opened.frames(clip), DataError)
    assert "\n" not in refusal
    wave, _ = soundfile.read(clip, dtype="float32")
    assert frames is None or np.array_equal(frames.ravel(), wave)


def names(content: bytes, scratch: Path) -> None:
    """Any name is one printable line wherever it goes, and markup nowhere."""
    from spaudio.io.csv_files import for_csv
    from spaudio.io.escape import for_figure, for_markdown, printable

    name = content.decode("utf-8", "surrogateescape")
    for shown in (printable(name), for_markdown(name), for_figure(name)):
        assert shown.isprintable()
        shown.encode()  # no lone surrogates
    assert for_figure(name).count("$") == for_figure(name).count(r"\$")
    assert for_csv(name)[:1] not in tuple("=+-@\t\r")
    assert not re.search(r"(?<!\\)(\\\\)*[|<>]", for_markdown(name))


def _run_folder(scratch: Path) -> tuple[Path, dict[str, bytes]]:
    """Makes a finished run once; returns it with its files."""
    from tests.fixtures.tiny_run import make_untrained_run

    folder = scratch / "folder" / "untrained"
    if not folder.is_dir():
        make_untrained_run(scratch)
        report = {
            "recipe": "folder", "seed": 0, "metric": "accuracy", "num_params": 9,
            "filter_params": 0, "test": {"accuracy": 0.5, "macro_f1": 0.5}, "floor": {"svm": 0.5},
            "seconds": {"train": 1.0}, "step_seconds": 0.1,
        }  # fmt: skip
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "log.jsonl").write_text('{"epoch": 1, "step": 9, "valid_loss": 1.5}\n')
        (folder / "good").mkdir()
        for file in RUN_FILES:
            shutil.copy(folder / file, folder / "good")
    return folder, {file: (folder / "good" / file).read_bytes() for file in RUN_FILES}


def _try(call: Callable[[], T], refusal: type[SpaudioError]) -> tuple[str, T | None]:
    """Returns the message of the package's error, or the result of the call."""
    try:
        return "", call()
    except refusal as error:
        return str(error), None


TARGETS = {hold.__name__: hold for hold in (audio, manifest, archive, settings, run, cache, names)}


def seeds(target: str, scratch: Path) -> Iterable[bytes]:
    """Yields good inputs to start from."""
    path = scratch / "seed"
    if target == "audio":
        wave = tone(1, np.random.default_rng(0), 0.1)
        for container in sorted(set(CONTAINERS) & set(soundfile.available_formats())):
            soundfile.write(path, wave, RATE, format=container)
            yield path.read_bytes()
        soundfile.write(path, np.stack([wave, wave], 1), RATE, format="WAV", subtype="FLOAT")
        yield path.read_bytes()
    elif target == "manifest":
        clip = Clip("hum/a.wav", "hum", "train", "g0", 1.25, RATE, fold=1)
        write_manifest(path, [clip, Clip("hiss/b.wav", "hiss", "test", "g1", 0.5, RATE)])
        yield path.read_bytes()
        yield b'{"path": "a", "label": ["b"], "seconds": 1e400, "fold": null}\n'
    elif target == "archive":
        for mode in ("w", "w:gz", "w:bz2", "w:xz"):
            with tarfile.open(path, mode) as tar:
                tar.add(__file__, "top/a.wav")
            yield path.read_bytes()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("top/a.wav", b"samples" * 9)
            opened.writestr("top/deep/", b"")
        yield path.read_bytes()
    elif target == "run":
        for file, good in _run_folder(scratch)[1].items():
            yield file.encode() + b"\n" + good
    elif target == "cache":
        cache(b"", scratch)  # makes a good one
        for file in ("index.jsonl", "frames.bin"):
            yield file.encode() + b"\n" + (scratch / file).read_bytes()
    elif target == "names":
        yield "$a$|<b>[c](d)\n=1\x1b[31m_é語*`".encode()
    else:
        yield b"filter=bank\nseed=0,1\nfilter.kernel_size=8\ntokens.f_max=null"
        yield b"source='a b'\nmodel.filter_layers=[1]\n++seed=range(0,3)"
    path.unlink(missing_ok=True)
