"""Events in long recordings: where the sounds are, whatever the hop, in constant memory."""

import csv
import json
import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import spaudio
from spaudio.audio.manifest import is_nothing
from spaudio.cli import main
from spaudio.errors import ConfigError
from spaudio.experiment.data import load_data
from spaudio.experiment.inputs import Inputs
from spaudio.inference.detect import detect, divide, event_finder, merge
from spaudio.inference.live import Heard
from spaudio.inference.predict import Predictor
from tests import RECIPES
from tests.fixtures.tiny_run import compose, make_untrained_run

CLASSES = ("dog", "owl", "_background_")


def heard(start: float, end: float, dog: float, owl: float = 0.0) -> Heard:
    return Heard(start, end, np.array([dog, owl, 1 - dog - owl], np.float32), CLASSES)


def test_windows_divide_the_recording() -> None:
    answers = [heard(0, 1, 0.1), heard(0.5, 1.5, 0.9), heard(1, 2, 0.9), heard(1.2, 2.2, 0.1)]
    parts = list(divide(answers))
    assert [(p.start, p.end) for p in parts] == [(0, 0.75), (0.75, 1.25), (1.25, 1.6), (1.6, 2.2)]
    [alone] = divide([heard(0, 0.3, 1)])
    assert (alone.start, alone.end) == (0, 0.3)
    assert list(divide([])) == []


def test_neighbours_are_merged_and_nothing_is_no_event() -> None:
    shares = [(0.6, 0), (0.9, 0), (0.2, 0.8), (0.5, 0.5), (0, 0), (0.7, 0)]
    parts = [heard(i, i + 1, *share) for i, share in enumerate(shares)]
    (none, events), seconds = merge(parts, (0.95, 0.5))
    assert none == []
    found = [(e.start, e.end, e.label, round(e.confidence, 3)) for e in events]
    assert found == [(0, 2, "dog", 0.9), (2, 4, "owl", 0.8), (3, 4, "dog", 0.5), (5, 6, "dog", 0.7)]
    assert seconds == 6
    assert is_nothing("_silence_")
    assert not is_nothing("_")


def test_windows_overlap_by_half_unless_a_hop_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "spaudio.inference.detect.merge", lambda parts, thresholds: (list(parts), 0)
    )
    predictor = Predictor(make_untrained_run(tmp_path))
    wave = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    for hop, step in ((None, predictor.event_seconds / 2), (0.125, 0.125)):
        find = event_finder(predictor, hop, (0.5,))
        parts: list[Heard] = find([wave])[0]  # type: ignore[assignment]
        assert len(parts) == 1 + round((1 - predictor.event_seconds) / step)
        assert [part.end - part.start for part in parts[1:-1]] == [step] * (len(parts) - 2)


def test_events_of_real_sounds_are_where_they_were_put(own_run: Path, tmp_path: Path) -> None:
    """Digits at known places, as the model hears each of them alone."""
    predictor = Predictor(own_run, window=Inputs.load(own_run).longest_seconds)
    sounds = own_run.parents[2] / "sounds"
    clips = sorted(sounds.glob("*/theo_*.flac"))[:6]
    window = predictor.windows.samples
    slots = []
    for path in clips:
        wave = soundfile.read(path, dtype="float32")[0]
        slots.append(np.pad(wave, (0, window - len(wave))))
    path = tmp_path / "20240501_220000.wav"
    soundfile.write(path, np.concatenate(slots), 8000, subtype="FLOAT")
    expected = [predictor.probabilities([slot])[0] for slot in slots]
    [one], bad = detect(predictor, [path], hop=predictor.window_seconds, threshold=1e-6, timed=True)
    assert not bad
    assert one.seconds == pytest.approx(6 * predictor.window_seconds)
    for label, place in zip(predictor.inputs.classes, range(3), strict=True):
        [event] = [event for event in one.events if event.label == label]
        assert (event.start, event.end) == (0, one.seconds)
        assert event.confidence == pytest.approx(max(float(p[place]) for p in expected), abs=1e-5)
    tops = [p.argmax().item() for p in expected]
    limit = min(float(p.max()) for p in expected) - 1e-5
    [all_of_them], _ = detect(
        predictor, [path], hop=predictor.window_seconds, threshold=1e-6, other_thresholds=[limit]
    )
    [one], _ = detect(predictor, [path], hop=predictor.window_seconds, threshold=limit)
    assert all_of_them.at == {limit: one.events}
    for event in one.events:
        first, last = (round(t / predictor.window_seconds) for t in (event.start, event.end))
        number = predictor.inputs.classes.index(event.label)
        assert all(expected[slot][number] >= limit - 1e-5 for slot in range(first, last))
        assert number in tops
    assert {event.label for event in one.events} == {predictor.inputs.classes[top] for top in tops}
    model = spaudio.load(own_run, window=predictor.window_seconds)
    options = {"hop": predictor.window_seconds, "threshold": limit}
    assert model.detect(path, **options) == one.events
    assert model.detect(np.concatenate(slots), 8000, **options) == one.events
    assert model.detect(np.zeros(8000, np.float32), 8000) == []
    main(["detect", str(own_run), str(path), "--times", "--output", str(tmp_path / "events.csv"),
          "--threshold", "0.01"])  # fmt: skip
    row = next(csv.DictReader((tmp_path / "events.csv").open()))
    assert row["start_time"] == "2024-05-01T22:00:00.000"


def test_the_window_has_the_median_length_of_clips_of_other_classes(
    tmp_path: Path,
) -> None:
    """A long recording without events must not decide the window in which events are sought."""
    for label, seconds in (("dog", 0.5), ("owl", 0.9), ("_nothing_", 4.0)):
        for number in range(8):
            wave = np.random.default_rng(number).standard_normal(round(8000 * seconds)) / 10
            file = tmp_path / "sounds" / label / f"{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, wave, 8000)
    settings = compose("folder", f"source={tmp_path / 'sounds'}", f"data={tmp_path}",
                       "tokens.sample_rate=8000")  # fmt: skip
    data = load_data(settings, RECIPES / "folder")
    assert (data.typical_seconds, data.longest_seconds) == (pytest.approx(0.7), 4)
    run = make_untrained_run(tmp_path)
    assert Predictor(run).event_seconds == 0.5  # the longest: the run knows no other length
    inputs = replace(Inputs.load(run), longest_seconds=4, typical_seconds=0.7)
    inputs.save(run)
    assert Inputs.load(run).typical_seconds == 0.7
    assert (Predictor(run).event_seconds, Predictor(run).window_seconds) == (0.7, 4)
    assert Predictor(run, window=1).event_seconds == 1
    short = replace(inputs, typical_seconds=0.1)
    short.save(run)
    stream = spaudio.load(run).stream()  # the hop is half of the window
    assert len(list(stream([wave], 8000))) == 79


def test_memory_does_not_grow_with_the_recording(own_run: Path, tmp_path: Path) -> None:
    predictor = Predictor(own_run, window=1.0)
    rng = np.random.default_rng(0)

    def peak(seconds: int) -> int:
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(seconds * 8000), 8000)
        tracemalloc.start()
        detect(predictor, [path], threshold=0.999)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)  # the first call fills caches
    assert peak(100) < 1.2 * peak(20)


def test_every_format_and_what_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(make_untrained_run(tmp_path))
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / "in" / name, 0.1 * rng.standard_normal(16_000), 8000)
    command = ["detect", run, str(tmp_path / "in"), "--threshold", "0.2"]
    main(command)
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(out.splitlines()))
    assert {Path(row["file"]).name for row in rows} == {"a.wav", "b.wav"}
    assert "a.wav: " in err
    assert " events in 2.0 s (window 0.5 s)\n" in err
    main([*command, "--window", "0.3"])
    assert " events in 2.0 s (window 0.3 s)\n" in capsys.readouterr().err
    long = tmp_path / "in" / ("c" * 248 + ".wav")
    (tmp_path / "in" / "a.wav").rename(long)
    new = ["--format", "raven", "--output", str(tmp_path / "new")]
    with pytest.raises(SystemExit, match="has 262 bytes, and may have 255; rename the recording"):
        main([*command, *new])
    assert not (tmp_path / "new").exists()
    long.rename(tmp_path / "in" / "a.wav")
    for form, end in (("audacity", "audacity.txt"), ("raven", "raven.txt")):
        with pytest.raises(SystemExit, match="there is no folder"):
            main([*command, "--format", form, "--output", str(tmp_path / "new" / form)])
        with pytest.raises(SystemExit, match="no-run"):
            main(["detect", str(tmp_path / "no-run"), *command[2:], "--format", form,
                  "--output", str(tmp_path / form)])  # fmt: skip
        with pytest.raises(SystemExit, match="expected a hop"):
            main([*command, "--hop", "9", "--format", form, "--output", str(tmp_path / form)])
        assert not (tmp_path / form).exists()
        main([*command, "--format", form, "--output", str(tmp_path / form)])  # makes the folder
        assert {p.name for p in (tmp_path / form).iterdir()} == {f"a.wav.{end}", f"b.wav.{end}"}
        main(["detect", run, str(tmp_path / "in" / "a.wav"), "--format", form])
        capsys.readouterr()
        with pytest.raises(SystemExit, match=r"error: --format .* one file per recording"):
            main([*command, "--format", form])
        with pytest.raises(SystemExit, match="exists; name another file"):
            main([*command, "--format", form, "--output", str(tmp_path / form)])
    (tmp_path / "void").mkdir()
    with pytest.raises(SystemExit):  # the folder of the events is not to blame
        main(["detect", run, str(tmp_path / "void"), "--format", "raven", "--output",
              str(tmp_path / "raven")])  # fmt: skip
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path / 'void'}: holds no audio file; check the path\n"
    )
    with pytest.raises(SystemExit) as caught:
        main([*command, "--times", "--skip-bad"])
    assert caught.value.code == 1
    assert "a.wav: its name holds no start time" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["detect", run, str(tmp_path / "nowhere.wav"), "--times"])
    assert "nowhere.wav: no such file" in capsys.readouterr().err
    (tmp_path / "in" / "site").mkdir()
    shutil.copy(tmp_path / "in" / "a.wav", tmp_path / "in" / "site")
    with pytest.raises(SystemExit, match=r"in/a\.wav and .*in/site/a\.wav have the same name"):
        main([*command, "--format", "raven", "--output", str(tmp_path / "raven"), "--force"])
    predictor = Predictor(Path(run))
    assert err.count("the run has no class for other sounds, so every sound is assigned") == 1
    inputs = Path(run) / "inputs.json"
    content = json.loads(inputs.read_text())
    for change in ({"classes": ["a", "b", "c", "_background_"]}, {"multi_label": True}):
        inputs.write_text(json.dumps(content | change))
        main(["detect", run, str(tmp_path / "in" / "a.wav")])
        assert "no class for other sounds" not in capsys.readouterr().err
    wave = 0.1 * rng.standard_normal(100_000)
    wave[1000] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, 8000, subtype="FLOAT")
    [(_, reason)] = detect(predictor, [tmp_path / "nan.wav"])[1]
    assert reason.startswith("1 of 100000 samples are not finite")
    noise = np.random.default_rng(0).normal(size=8000) / 9
    for wave, said in (
        (np.zeros(8000), True),
        (np.stack([noise, -noise], 1), True),
        (noise, False),
    ):
        soundfile.write(tmp_path / "silent.wav", wave, 8000)
        main(["detect", run, str(tmp_path / "silent.wav"), "--threshold", "1"])
        line = capsys.readouterr().err
        assert re.search(r"silent\.wav: 0 events in 1\.0 s \(window .* s\)(, all silent)?\n", line)
        assert ("all silent" in line) == said
    for options, said in (
        ({"threshold": 0}, "threshold=0; expected"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"hop": 2.0}, r"window=0\.5 s, hop=2 s; expected"),
    ):
        with pytest.raises(ConfigError, match=said):
            detect(predictor, [], **options)  # type: ignore[arg-type]
