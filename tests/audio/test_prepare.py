from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from spaudio.audio import Prepared, SourceClip, SourceClips, prepare, read_manifest
from spaudio.audio.scan import scan_clips
from spaudio.errors import DataError
from spaudio.io.lock import locked
from tests.fixtures.tiny_audio import CLASSES, RATE, make_bad_clips, make_class_folders, tone

MODULE = sys.modules[scan_clips.__module__]


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
        clips = [
            SourceClip(
                path=path.relative_to(root).as_posix(),
                label=path.relative_to(root).parts[0],
                split="test" if path.name.startswith("g0") else "train",
                group=path.name[:2],
            )
            for path in root.rglob("*.*")
            if path.suffix != ".txt"
        ]
        return SourceClips(root, clips, labels)

    return list_clips


def run(source: Path, **changes: Any) -> Prepared:
    settings: dict[str, Any] = {
        "folder": source.parent / "data",
        "options": {"source": "x"},
        "progress": False,
    }
    return prepare("tiny", listing(source, changes.pop("labels", None)), **(settings | changes))


def only(pattern: str, folder: Path) -> Path:
    (found,) = folder.rglob(pattern)
    return found


def test_a_finished_preparation(source: Path) -> None:
    prepared = run(source, workers=2)
    assert read_manifest(prepared.manifest) == list(prepared.clips)
    assert [c.path for c in prepared.clips] == sorted(c.path for c in prepared.clips)
    assert len(prepared.clips) == 60
    assert prepared.labels == tuple(sorted(CLASSES))
    assert prepared.skipped == ()
    marker = json.loads((prepared.manifest.parent / "prepared.json").read_text())
    assert marker["manifest_sha256"] == prepared.hash
    assert hashlib.sha256(prepared.manifest.read_bytes()).hexdigest() == prepared.hash
    assert marker["counts"]["test"] == dict.fromkeys(CLASSES, 4)
    assert marker["counts"]["train"] == dict.fromkeys(CLASSES, 16)
    assert marker["options"] == {"source": "x"}
    for clip in prepared.clips:
        samples, rate = soundfile.read(prepared.root / clip.path)
        assert clip.sample_rate == rate
        assert clip.seconds == pytest.approx(len(samples) / rate, abs=1e-6)


def test_the_hash_depends_on_neither_place_nor_workers(source: Path, tmp_path: Path) -> None:
    first = run(source)
    moved = tmp_path / "elsewhere" / "source"
    shutil.copytree(source, moved)
    assert run(moved, workers=4).hash == first.hash


def test_a_second_call_decodes_nothing(source: Path, decoded: list[str]) -> None:
    first = run(source)
    assert len(decoded) == 60
    second = run(source)
    assert len(decoded) == 60
    assert (second.clips, second.hash, second.labels) == (first.clips, first.hash, first.labels)


def test_other_options_are_another_preparation(source: Path, decoded: list[str]) -> None:
    first = run(source, options={"split": "a", "seed": 0})
    assert run(source, options={"seed": 0, "split": "a"}).manifest == first.manifest
    assert run(source, options={"seed": 1, "split": "a"}).manifest != first.manifest
    assert len(decoded) == 120


def test_only_changed_and_new_files_are_decoded_again(source: Path, decoded: list[str]) -> None:
    first = run(source)
    decoded.clear()
    wave = tone(0, np.random.default_rng(9), seconds=0.7)
    soundfile.write(source / "hum" / "g3_0.WAV", wave, RATE)
    soundfile.write(source / "hum" / "g9_0.wav", wave, RATE)
    (source / "hiss" / "g4_0.mp3").unlink()
    second = run(source)
    assert sorted(decoded) == ["g3_0.WAV", "g9_0.wav"]
    assert {c.path: c.seconds for c in second.clips}["hum/g3_0.WAV"] == 0.7
    assert {c.path for c in second.clips} ^ {c.path for c in first.clips} == {
        "hum/g9_0.wav",
        "hiss/g4_0.mp3",
    }
    assert read_manifest(second.manifest) == list(second.clips)
    assert second.hash != first.hash


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
    journal = only("journal.jsonl", data)
    content = journal.read_bytes()
    assert content.count(b"\n") == 26
    journal.write_bytes(content[:-20])
    decoded.clear()
    resumed = run(source)
    assert len(decoded) == 60 - 24
    assert len(resumed.clips) == 60
    assert resumed.hash == run(source, folder=source.parent / "other").hash
    for line in journal.read_text().splitlines():
        json.loads(line)


def test_findings_under_other_rules_are_not_taken_over(source: Path, decoded: list[str]) -> None:
    prepared = run(source)
    journal = prepared.manifest.parent / "journal.jsonl"
    header, rest = journal.read_text().split("\n", 1)
    rules = json.loads(header) | {"silence_dbfs": -60.0}
    journal.write_text(f"{json.dumps(rules)}\n{rest}")
    assert run(source).hash == prepared.hash
    assert len(decoded) == 120


def test_a_new_check_withdraws_the_marker_first(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = run(source).manifest.parent / "prepared.json"
    soundfile.write(source / "hum" / "new.wav", tone(0, np.random.default_rng(9)), RATE)

    def interrupted(path: Path, **options: bool) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source)
    assert not marker.exists()


def test_bad_clips_stop_it_and_are_all_named(source: Path) -> None:
    reasons = make_bad_clips(source / "hum")
    for index in range(30):
        (source / "hiss" / f"void{index}.wav").touch()
    with pytest.raises(DataError) as caught:
        run(source)
    message = str(caught.value)
    listed = only("bad_clips.txt", source.parent / "data")
    assert f"{len(reasons) + 30} of {60 + len(reasons) + 30} clips cannot be used" in message
    assert str(listed) in message
    assert "skip_bad=true" in message
    lines = dict(line.split(": ", 1) for line in listed.read_text().splitlines())
    assert len(lines) == len(reasons) + 30
    for name, reason in reasons.items():
        assert reason in lines[f"hum/{name}"]
    assert not list((source.parent / "data").rglob("prepared.json"))


def test_skip_bad_leaves_them_out_and_lists_them(source: Path, decoded: list[str]) -> None:
    reasons = make_bad_clips(source / "hum")
    clean = 60
    with pytest.raises(DataError):
        run(source)
    number = len(decoded)
    prepared = run(source, skip_bad=True)
    assert len(decoded) == number
    assert len(prepared.clips) == clean
    marker = json.loads((prepared.manifest.parent / "prepared.json").read_text())
    assert {item["path"] for item in marker["skipped"]} == {f"hum/{name}" for name in reasons}
    assert prepared.skipped == tuple((i["path"], i["reason"]) for i in marker["skipped"])
    with pytest.raises(DataError, match="cannot be used"):
        run(source)
    assert not list((source.parent / "data").rglob("prepared.json"))
    for name in reasons:  # a repaired clip is checked again
        soundfile.write(
            source / "hum" / name, tone(0, np.random.default_rng(9)), RATE, format="WAV"
        )
    assert len(run(source).clips) == 60 + len(reasons)
    assert not (prepared.manifest.parent / "bad_clips.txt").exists()


def test_labels_keep_their_natural_order_and_unknown_ones_are_bad(source: Path) -> None:
    known = ("sweep", "never", "hum", "hiss")
    assert run(source, labels=known).labels == ("sweep", "hum", "hiss")
    with pytest.raises(DataError, match="unknown label 'sweep'; known: hum, hiss"):
        run(source, labels=("hum", "hiss"))
    assert run(source, labels=("hum", "hiss"), skip_bad=True).labels == ("hum", "hiss")


def test_too_short_clips_are_bad(source: Path, decoded: list[str]) -> None:
    soundfile.write(source / "hum" / "short.wav", tone(0, np.random.default_rng(9), 0.05), RATE)
    with pytest.raises(DataError, match=r"short\.wav: 0\.05 s long; at least 0\.1 s needed"):
        run(source, min_seconds=0.1)
    assert len(run(source, min_seconds=0.05).clips) == 61


def test_a_label_without_training_clip_or_no_clip_at_all(source: Path, tmp_path: Path) -> None:
    (source / "odd").mkdir()
    soundfile.write(source / "odd" / "g0.wav", tone(0, np.random.default_rng(9)), RATE)
    with pytest.raises(DataError, match="'odd' has no clip in the training split"):
        run(source)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no clips found"):
        run(tmp_path / "void")
    (tmp_path / "void" / "g1.wav").touch()
    with pytest.raises(DataError, match="every clip is bad"):
        run(tmp_path / "void", skip_bad=True, options={"source": "void"})


def test_a_changed_manifest_is_not_overwritten(source: Path) -> None:
    prepared = run(source)
    text = prepared.manifest.read_text()
    prepared.manifest.write_text(text.replace('"train"', '"valid"', 1))
    with pytest.raises(DataError, match="was changed after the preparation"):
        run(source)
    prepared.manifest.write_text(text)
    assert run(source).hash == prepared.hash


def test_a_listed_file_that_is_missing_or_twice(source: Path) -> None:
    def with_extra(path: str) -> Callable[[Path], SourceClips]:
        def list_clips(work: Path) -> SourceClips:
            found = listing(source)(work)
            return SourceClips(source, [*found.clips, SourceClip(path, "hum", "train", "g")])

        return list_clips

    folder = source.parent / "data"
    with pytest.raises(DataError, match=r"hum/gone\.wav: no such file"):
        prepare("tiny", with_extra("hum/gone.wav"), folder=folder, options={}, progress=False)
    with pytest.raises(DataError, match="listed twice"):
        prepare("tiny", with_extra("hum/g0_0.wav"), folder=folder, options={}, progress=False)
    with pytest.raises(DataError, match="cannot be written as JSON"):
        run(source, options={"source": Path("x")})


def test_a_bar_is_shown_unless_told_otherwise(
    source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(source, progress=True)
    assert "Checking clips" in capfd.readouterr().err
    run(source, folder=source.parent / "other", progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_one_preparation_at_a_time(source: Path) -> None:
    done: list[float] = []
    with locked(source.parent / "data" / "tiny" / "lock"):
        thread = threading.Thread(target=lambda: done.append(run(source).seconds))
        thread.start()
        time.sleep(0.3)
        assert not done
        assert not list((source.parent / "data").rglob("journal.jsonl"))
    thread.join(timeout=30)
    assert done


def test_where_silence_is_a_sound_it_is_no_fault(source: Path) -> None:
    soundfile.write(source / "hum" / "g1_silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(DataError, match="silent"):
        run(source)

    def listed(work: Path) -> SourceClips:
        return replace(listing(source)(work), silent_ok=True)

    prepared = prepare("toy", listed, folder=source.parent / "data", options={"silence": True})
    assert len(prepared.clips) == 61
