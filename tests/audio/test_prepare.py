import errno
import hashlib
import json
import os
import re
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import spaudio.io.journal
import spaudio.io.spread
from spaudio.audio import Prepared, SourceClip, SourceClips, decode, prepare, read_manifest
from spaudio.audio.duplicates import check_duplicates
from spaudio.audio.manifest import Clip, encode_manifest
from spaudio.audio.scan import scan_clips
from spaudio.errors import ConfigError, DataError
from spaudio.io.lock import locked
from tests.fixtures.tiny_audio import CLASSES, RATE, make_bad_clips, make_class_folders, tone

MODULE = sys.modules[scan_clips.__module__]
DECODE = sys.modules[decode.__module__]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sixty clips; those of group 0 are for test."""
    return make_class_folders(tmp_path / "source")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files decoded so far."""
    names: list[str] = []
    original = vars(MODULE)["decode"]

    def decode(path: Path, **options: bool) -> Any:
        names.append(path.name)
        return original(path, **options)

    monkeypatch.setattr(MODULE, "decode", decode)
    return names


def listing(root: Path, labels: tuple[str, ...] | None = None) -> Callable[[Path], SourceClips]:
    def list_clips(work: Path) -> SourceClips:
        paths = [p.relative_to(root) for p in root.rglob("*.*") if p.suffix != ".txt"]
        clips = [
            SourceClip(
                path=path.as_posix(),
                label=path.parts[0],
                split="test" if path.name.startswith("g0") else "train",
                group=path.name[:2],
            )
            for path in paths
        ]
        return SourceClips(root, clips, labels)

    return list_clips


def run(source: Path, **changes: Any) -> Prepared:
    settings: dict[str, Any] = {"folder": source.parent / "data", "options": {}, "progress": False}
    return prepare("tiny", listing(source, changes.pop("labels", None)), **(settings | changes))


def test_a_finished_preparation_is_not_decoded_again(
    source: Path, decoded: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepared = run(source, workers=2)
    assert capfd.readouterr() == ("", "")
    assert read_manifest(prepared.manifest) == list(prepared.clips)
    assert [c.path for c in prepared.clips] == sorted(c.path for c in prepared.clips)
    assert len(prepared.clips) == len(decoded) == 60
    assert prepared.labels == tuple(sorted(CLASSES))
    marker = json.loads((prepared.manifest.parent / "prepared.json").read_text())
    assert hashlib.sha256(prepared.manifest.read_bytes()).hexdigest() == prepared.hash
    assert marker["manifest_sha256"] == prepared.hash
    assert marker["counts"]["test"] == dict.fromkeys(CLASSES, 4)
    assert marker["counts"]["train"] == dict.fromkeys(CLASSES, 16)
    for clip in prepared.clips:
        samples, rate = soundfile.read(prepared.root / clip.path)
        assert clip.sample_rate == rate
        assert clip.seconds == pytest.approx(len(samples) / rate, abs=1e-6)
    again = run(source, progress=True)
    assert (again.clips, again.hash, again.labels) == (
        prepared.clips,
        prepared.hash,
        prepared.labels,
    )
    assert len(decoded) == 60
    # The hash depends neither on the place nor on the number of workers.
    moved = tmp_path / "elsewhere" / "source"
    shutil.copytree(source, moved)
    assert run(moved, workers=4, progress=True).hash == prepared.hash
    assert "Checking clips" in capfd.readouterr().err


def test_a_manifest_is_encoded_once_and_read_only_if_it_has_changed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda given: calls.append(function.__name__) or function(given)

    for function in (encode_manifest, read_manifest):
        for module in (prepare.__module__, Clip.__module__):
            monkeypatch.setattr(sys.modules[module], function.__name__, counted(function))
    run(source)
    assert calls == ["encode_manifest"]
    prepared = run(source)
    assert calls == ["encode_manifest"] * 2
    text = prepared.manifest.read_text()
    prepared.manifest.write_text(text + "\n")  # the same clips
    assert run(source) == prepared
    assert "read_manifest" in calls


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, threads decode")
def test_remarks_of_the_mp3_decoder_are_one_warning_with_the_files(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wave = tone(0, np.random.default_rng(0), 2.0)
    soundfile.write(source / "hum" / "g9_whole.mp3", wave, RATE)
    mp3 = (source / "hum" / "g9_whole.mp3").read_bytes()
    half = len(mp3) // 2
    damaged = mp3[:half] + bytes(300) + mp3[half + 300 :]
    (source / "hum" / "g9_damaged.mp3").write_bytes(damaged)
    comment = b"ID3\x03\0\0\0\0\0\x0fCOMM\0\0\0\x05\0\0\0engX"  # without its end
    (source / "hum" / "g9_tag.mp3").write_bytes(comment + damaged[:half] + mp3[half:])
    monkeypatch.setattr(spaudio.io.spread, "_LEAST", 2)
    with pytest.warns(UserWarning, match="the MP3 decoder found damage") as said:
        prepared = run(source, workers=2, duplicates="allow")
    assert len(prepared.clips) == 63
    (message,) = {str(one.message) for one in said}
    assert "hum/g9_damaged.mp3 (Note: Illegal Audio-MPEG-Header 0x00000000 at offset" in message
    assert "g9_tag" not in message
    assert capfd.readouterr().err == ""


def test_other_options_are_another_preparation(source: Path) -> None:
    first = run(source, options={"split": "a", "seed": 0})
    assert run(source, options={"seed": 0, "split": "a"}).manifest == first.manifest
    assert run(source, options={"seed": 1, "split": "a"}).manifest != first.manifest
    with pytest.raises(DataError, match="cannot be written as JSON"):
        run(source, options={"source": Path("x")})


def test_only_changed_and_new_files_are_decoded_again(
    source: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(source)
    decoded.clear()
    wave = tone(0, np.random.default_rng(9), seconds=0.7)
    soundfile.write(source / "hum" / "g3_0.WAV", wave, RATE)
    soundfile.write(source / "hum" / "g9_0.wav", wave, RATE)
    (source / "hiss" / "g4_0.mp3").unlink()

    def interrupted(path: Path, **options: bool) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source)
    assert not first.manifest.with_name("prepared.json").exists()  # withdrawn before the check
    second = run(source)
    assert sorted(decoded) == ["g3_0.WAV", "g9_0.wav"]
    assert {c.path: c.seconds for c in second.clips}["hum/g3_0.WAV"] == 0.7
    changed = {c.path for c in second.clips} ^ {c.path for c in first.clips}
    assert changed == {"hum/g9_0.wav", "hiss/g4_0.mp3"}
    assert read_manifest(second.manifest) == list(second.clips)


def test_a_file_replaced_with_the_same_size_and_time_is_decoded_again(
    source: Path, decoded: list[str]
) -> None:
    file = source / "hum" / "g1_0.flac"
    wave, rate = soundfile.read(file, dtype="int16")
    soundfile.write(file, wave, rate, format="WAV")
    first, before = run(source), file.stat()
    decoded.clear()
    soundfile.write(file, wave[::-1], rate, format="WAV")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat()[6:9] == before[6:9]
    second = run(source)
    assert decoded == ["g1_0.flac"]
    assert (second.hash, second.samples_hash != first.samples_hash) == (first.hash, True)


def test_labels_and_splits_have_hashes_of_their_own(source: Path) -> None:
    prepared = run(source)
    first, *others = prepared.clips
    moved = replace(prepared, clips=(replace(first, split="valid"), *others))
    corrected = replace(prepared, clips=(replace(first, label="sweep"), *others))
    assert moved.labels_hash == prepared.labels_hash != corrected.labels_hash
    assert moved.splits_hash != prepared.splits_hash == corrected.splits_hash


@pytest.mark.parametrize(
    ("error", "where", "name"),
    [
        (OSError(errno.EIO, "I/O error"), soundfile.SoundFile, "__init__"),
        (OSError(errno.EIO, "I/O error"), DECODE, "fault"),
        (OSError(errno.EACCES, "Permission denied"), soundfile.SoundFile, "__init__"),
        (soundfile.LibsndfileError(2), soundfile.SoundFile, "__init__"),
        (soundfile.LibsndfileError(2), soundfile.SoundFile, "read"),
    ],
)
def test_an_error_of_the_system_does_not_stand(
    source: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: Any, name: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        with pytest.raises(
            DataError, match=r"60 of 60 clips .*\n.*(i/o error|[Ss]ystem error|[Pp]ermission)"
        ):
            run(source)
    assert len(run(source).clips) == 60


def test_an_interrupted_preparation_is_resumed_and_never_taken_as_finished(
    source: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    counting = vars(MODULE)["decode"]

    def interrupted(path: Path, **options: bool) -> Any:
        if len(decoded) == 25:
            raise KeyboardInterrupt
        return counting(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source)
    data = source.parent / "data"
    assert not list(data.rglob("prepared.json"))
    assert not list(data.rglob("manifest.jsonl"))
    # A crash may tear the line that is being written.
    (journal,) = data.rglob("journal.jsonl")
    content = journal.read_bytes()
    assert content.count(b"\n") == 26
    journal.write_bytes(content[:-20])
    decoded.clear()
    resumed = run(source)
    assert len(decoded) == 60 - 24
    assert resumed.hash == run(source, folder=source.parent / "other").hash
    # Findings under other rules are not taken over.
    header, rest = journal.read_text().split("\n", 1)
    assert len([json.loads(line) for line in rest.splitlines()]) == 60
    journal.write_text(f"{json.dumps(json.loads(header) | {'silence_dbfs': -60.0})}\n{rest}")
    decoded.clear()
    assert run(source).hash == resumed.hash
    assert len(decoded) == 60


def test_bad_clips_stop_it_and_skip_bad_leaves_them_out(source: Path, decoded: list[str]) -> None:
    reasons = make_bad_clips(source / "hum")
    for index in range(30):
        (source / "hiss" / f"void{index}.wav").touch()
    with pytest.raises(DataError) as caught:
        run(source)
    data = source.parent / "data"
    (listed,) = data.rglob("bad_clips.txt")
    assert f"40 of 100 clips cannot be used (all are listed in {listed})" in str(caught.value)
    assert "skip_bad=true" in str(caught.value)
    lines = dict(line.split(": ", 1) for line in listed.read_text().splitlines())
    assert len(lines) == len(reasons) + 30
    for name, reason in reasons.items():
        assert reason in lines[f"hum/{name}"]
    assert not list(data.rglob("prepared.json"))
    decoded.clear()
    prepared = run(source, skip_bad=True)
    assert (len(decoded), len(prepared.clips)) == (0, 60)
    marker = json.loads(prepared.manifest.with_name("prepared.json").read_text())
    assert {item["path"]: item["reason"] for item in marker["skipped"]} == lines
    assert dict(prepared.skipped) == lines
    with pytest.raises(DataError, match="cannot be used"):
        run(source)
    assert not list(data.rglob("prepared.json"))
    random = np.random.default_rng(9)
    for path in lines:  # a repaired clip is checked again
        soundfile.write(source / path, tone(0, random), RATE, format="WAV")
    assert len(run(source).clips) == 100
    assert not listed.exists()


def test_what_cannot_be_used_is_named(source: Path, tmp_path: Path) -> None:
    known = ("sweep", "never", "hum", "hiss")
    assert run(source, labels=known).labels == ("sweep", "hum", "hiss")
    with pytest.raises(DataError, match="unknown label 'sweep'; known: hum, hiss"):
        run(source, labels=("hum", "hiss"))
    assert run(source, labels=("hum", "hiss"), skip_bad=True).labels == ("hum", "hiss")
    (source / "odd").mkdir()
    soundfile.write(source / "odd" / "g0.wav", tone(0, np.random.default_rng(9)), RATE)
    assert list((tmp_path / "data").rglob("prepared.json"))
    with pytest.raises(DataError, match="'odd' has no clip in the training split"):
        run(source)
    assert not list((tmp_path / "data").rglob("prepared.json"))
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no clips found"):
        run(tmp_path / "void")
    (tmp_path / "void" / "g1.wav").touch()
    with pytest.raises(DataError, match="every clip is bad"):
        run(tmp_path / "void", skip_bad=True, options={"source": "void"})


def test_the_same_audio_twice_is_told_or_refused(source: Path) -> None:
    def copy(old: str, new: str) -> None:
        (source / new).parent.mkdir(exist_ok=True)
        data, rate = soundfile.read(source / old, dtype="int16")
        soundfile.write(source / new, data, rate, format="FLAC")  # other bytes, the same samples

    copy("hum/g1_0.flac", "hum/g1_copy.flac")
    slow = soundfile.read(source / "hum/g1_0.flac", dtype="int16")[0]  # sounds different
    soundfile.write(source / "hum/g1_slow.flac", slow, RATE // 2)
    prepared = run(source)
    assert prepared.duplicates == (("hum/g1_0.flac", "hum/g1_copy.flac"),)
    [said] = prepared.warnings
    assert "more than once (1 recording): hum/g1_0.flac = hum/g1_copy.flac" in said
    marker = json.loads(prepared.manifest.with_name("prepared.json").read_text())
    assert (marker["duplicates"], marker["warnings"]) == ([[*prepared.duplicates[0]]], [said])
    copy("hum/g1_0.flac", "hiss/g1_copy.flac")
    copy("hiss/g3_0.WAV", "hiss/g0_copy.flac")  # group 0 is for test
    with pytest.raises(DataError) as refused:
        run(source)
    file = prepared.manifest.with_name("duplicates.txt")
    assert file.read_text().splitlines() == [
        "hiss/g0_copy.flac (hiss, test) = hiss/g3_0.WAV (hiss, train)",
        "hiss/g1_copy.flac (hiss, train) = hum/g1_0.flac (hum, train) = "
        "hum/g1_copy.flac (hum, train)",
    ]
    for words in (f"(all are listed in {file})",
                  "under different labels (1 recording): hiss/g1_copy.flac = hum/g1_0.flac",
                  "in different splits or folds (1 recording): hiss/g0_copy.flac = hiss/g3_0.WAV",
                  "duplicates=allow"):  # fmt: skip
        assert words in str(refused.value)
    assert not prepared.manifest.with_name("prepared.json").exists()
    allowed = run(source, duplicates="allow")
    assert len(allowed.warnings) == 2
    copy("hum/g1_0.flac", "sweep/g0_copy.flac")  # differs in both ways, and is listed once
    with pytest.raises(DataError) as refused:
        run(source)
    both = "different labels and in different splits or folds (1 recording): hiss/g1_copy.flac"
    assert both in str(refused.value)
    assert str(refused.value).count("the same audio") == 2
    (source / "sweep/g0_copy.flac").unlink()
    (source / "hiss/g1_copy.flac").unlink()
    (source / "hiss/g0_copy.flac").unlink()
    assert run(source).hash == prepared.hash
    assert not file.exists()
    with pytest.raises(ConfigError, match="expected refuse or allow"):
        run(source, duplicates="perhaps")


def test_the_same_audio_may_have_negative_zeros(source: Path) -> None:
    wave = soundfile.read(source / "hum/g1_0.flac", dtype="float32")[0]
    wave[::5] = 0
    soundfile.write(source / "hum/g1_x.wav", wave, RATE, "PCM_16")
    wave[::5] = -0.0
    soundfile.write(source / "hum/g1_y.wav", wave, RATE, "FLOAT")
    assert run(source).duplicates == (("hum/g1_x.wav", "hum/g1_y.wav"),)


def test_clips_on_the_scale_of_integers_are_warned_of(source: Path) -> None:
    for path in (source / "hum").glob("*.wav"):
        soundfile.write(path, 32768 * soundfile.read(path)[0], RATE, "FLOAT")
    for _ in range(2):  # from the journal, too
        [said] = run(source).warnings
        assert re.match(r"\d of 60 clips have peaks above 100 .* tell them apart by this$", said)


def test_clips_of_milliseconds_are_warned_of(source: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, RATE // 100))
    soundfile.write(source / "hum/g1_short.wav", noise[0], RATE)
    soundfile.write(source / "hum/g1_shorter.wav", noise[1, : RATE // 500], RATE)
    [said] = run(source).warnings
    assert said.startswith("2 of 62 clips are shorter than 20 ms (the shortest: hum/g1_shorter.wav")


def test_duplicates_in_two_folds_are_refused(tmp_path: Path) -> None:
    clips = [Clip(f"{n}.wav", "a", "train", "g", 1.0, 8000, fold=n) for n in (1, 2)]
    with pytest.raises(DataError, match="in different splits or folds"):
        check_duplicates(clips, [("1.wav", "2.wav")], [], "refuse", tmp_path / "list.txt")


def test_silent_clips_are_not_duplicates_of_each_other(tmp_path: Path) -> None:
    clips = [SourceClip(f"{name}.wav", name, "train", name) for name in "ab"]
    for clip in clips:
        soundfile.write(tmp_path / clip.path, np.zeros(RATE), RATE)
    listed = SourceClips(tmp_path, clips, silent_ok=True)
    found = prepare(
        "toy", lambda work: listed, folder=tmp_path / "data", options={}, progress=False
    )
    assert (found.duplicates, found.warnings) == ((), ())


def test_a_class_that_has_lost_all_clips_of_a_split_is_named(source: Path) -> None:
    for path in (source / "hum").rglob("g0_*"):  # group 0 is for test
        path.write_bytes(b"")
    prepared = run(source, skip_bad=True)
    assert prepared.warnings == (
        "class 'hum' has no clip in the test split: all 4 are bad and left out",
    )


def test_a_validation_split_that_is_lost_is_told(tmp_path: Path) -> None:
    clips = [
        SourceClip(f"{word}{split}.wav", word, split, f"{word}{split}")
        for word in "ab"
        for split in ("train", "valid", "test")
    ]
    rng = np.random.default_rng(0)
    for clip in clips:
        samples = rng.standard_normal(RATE) / 9 * (clip.split != "valid")  # silent ones are bad
        soundfile.write(tmp_path / clip.path, samples, RATE)
    found = prepare(
        "toy", lambda work: SourceClips(tmp_path, clips), folder=tmp_path / "data", options={},
        progress=False, skip_bad=True,
    )  # fmt: skip
    assert found.warnings == (
        "all clips of the valid split are bad; training clips are held out instead",
    )


def test_a_damaged_marker_or_journal_is_made_anew(source: Path) -> None:
    prepared = run(source)
    folder, manifest = prepared.manifest.parent, prepared.manifest.read_bytes()
    for name, damage in (
        ("prepared.json", b"[" * 100_000),
        ("prepared.json", b"[]"),
        ("journal.jsonl", b"\xff\0{\n"),
        ("journal.jsonl", b"[]\n"),
        ("manifest.jsonl", b"\xff"),
        ("manifest.jsonl", manifest[: len(manifest) // 2]),
    ):
        (folder / name).write_bytes(damage)
        with pytest.warns(UserWarning, match=f"{name}.* is damaged"):
            assert run(source).hash == prepared.hash
        assert prepared.manifest.read_bytes() == manifest
    assert json.loads((folder / "prepared.json").read_text())["counts"]


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    source: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = spaudio.io.journal.write_all

    def full(stream: Any, content: Any) -> None:
        if len(decoded) > 20:
            stream.write(content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        written(stream, content)

    with monkeypatch.context() as patch:
        patch.setattr(spaudio.io.journal, "write_all", full)
        with pytest.raises(
            DataError, match=r"disk of data=.* is full; .*the same command continues"
        ):
            run(source)
    decoded.clear()
    resumed = run(source)
    assert 40 <= len(decoded) < 60  # decoding is ahead of the journal
    assert resumed.hash == run(source, folder=source.parent / "other").hash


def test_a_file_too_large_is_named_and_the_next_run_goes_on(source: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(
            DataError, match=r"journal\.jsonl is larger than .* another disk with data=FOLDER"
        ):
            run(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run(source).hash == run(source, folder=source.parent / "other").hash


def test_data_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        DataError, match=r"data=.*file cannot be written \(.*; correct its perm.* or n"
    ):
        run(source, folder=tmp_path / "file")


def test_a_changed_manifest_is_not_overwritten(source: Path) -> None:
    prepared = run(source)
    text = prepared.manifest.read_text()
    prepared.manifest.write_text(text.replace('"train"', '"valid"', 1))
    with pytest.raises(DataError, match="was changed after the preparation"):
        run(source)
    prepared.manifest.write_text(text)
    assert run(source).hash == prepared.hash


@pytest.mark.parametrize(
    ("path", "reason"),
    [("hum/gone.wav", r"gone\.wav: no such file"), ("hum/g0_0.wav", "listed twice")],
)
def test_a_listed_file_that_is_missing_or_twice(source: Path, path: str, reason: str) -> None:
    def list_clips(work: Path) -> SourceClips:
        clips = listing(source)(work).clips
        return SourceClips(source, [*clips, SourceClip(path, "hum", "train", "g")])

    with pytest.raises(DataError, match=reason):
        prepare("tiny", list_clips, folder=source.parent / "data", options={}, progress=False)


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_one_preparation_at_a_time(source: Path) -> None:
    done: list[Prepared] = []
    with locked(source.parent / "data" / "tiny" / ".lock"):
        thread = threading.Thread(target=lambda: done.append(run(source)))
        thread.start()
        time.sleep(0.3)
        assert not done
        assert not list((source.parent / "data").rglob("journal.jsonl"))
    thread.join(timeout=30)
    assert done


def test_where_silence_is_a_sound_it_is_no_fault(source: Path) -> None:
    soundfile.write(source / "hum" / "g1_silent.wav", np.zeros(RATE), RATE)

    def prepared(silent_ok: bool) -> Prepared:
        listed = replace(listing(source)(source), silent_ok=silent_ok)
        return prepare("toy", lambda work: listed, folder=source.parent / "data", options={})

    assert len(prepared(True).clips) == 61
    with pytest.raises(DataError, match="silent"):  # what was found under another rule is not kept
        prepared(False)
    assert len(prepared(True).clips) == 61


def test_a_clip_too_short_for_a_rate_may_be_used_at_another(source: Path) -> None:
    soundfile.write(source / "hum" / "g1_short.wav", tone(0, np.random.default_rng(9))[:2], RATE)
    with pytest.raises(DataError, match=r"g1_short\.wav: too short"):
        run(source, stores=[Rate(1000)])
    assert len(run(source, stores=[Rate(RATE)]).clips) == 61


class Rate:
    """A store that keeps nothing."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def select(self, clips: Sequence[SourceClip]) -> Sequence[SourceClip]:
        return clips

    def writing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def lacks(self, file: Path, status: os.stat_result) -> bool:
        return True

    def compute(self, waveform: Any, samples: str) -> Any:
        return None

    def add(self, file: Path, status: os.stat_result, computed: Any) -> None:
        pass
