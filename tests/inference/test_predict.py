"""A finished run on other audio: as the run itself, whatever the file is like."""

import csv
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from spaudio.cli import main
from spaudio.errors import AudioError, CheckpointError, ConfigError
from spaudio.experiment.inputs import INPUTS
from spaudio.experiment.load import weights_folder
from spaudio.inference.detect import detect
from spaudio.inference.live import open_stream
from spaudio.inference.predict import EmbeddedSound, Predictor
from spaudio.inference.predict_files import predict_files
from spaudio.tokens.segments import SegmentConfig
from spaudio.training.alignment import Alignment
from tests.fixtures.bad_audio import make_bad_audio, says, wav
from tests.fixtures.tiny_audio import make_bad_clips, tone
from tests.fixtures.tiny_run import make_untrained_run

RATE = 8000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_run(tmp_path_factory.mktemp("runs"), "filter=bank", "tokens.stack=2")


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal(round(seconds * rate))).astype(np.float32)


def test_any_format_rate_and_channels(run: Path, tmp_path: Path) -> None:
    predictor = Predictor(run)
    wave = noise(0.3)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    faster = soxr.resample(wave, RATE, 44_100)
    soundfile.write(tmp_path / "a.flac", np.stack([faster, faster], axis=1), 44_100)
    one, other = predictor(tmp_path / "a.wav"), predictor(tmp_path / "a.flac")
    for found in (one, other):
        assert found.seconds == pytest.approx(0.3, abs=1e-3)
        assert found.probabilities.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(other.probabilities, one.probabilities, atol=0.01)


def test_a_rate_too_low_for_the_bands_of_training_is_told_once(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rate in (("low", RATE // 2), ("lower", RATE // 4), ("same", RATE)):
        soundfile.write(tmp_path / f"{name}.wav", noise(0.3)[: rate // 4], rate)
    for lowest, told in ((0, 0), (RATE // 4, 0), (RATE, 1), (48_000, 1)):
        predictor = Predictor(run)
        predictor.inputs = replace(predictor.inputs, lowest_rate=lowest)
        capsys.readouterr()
        for name in ("same", "low", "lower"):
            predictor(tmp_path / f"{name}.wav")
        said = capsys.readouterr().err
        assert said.count("has a sample rate of") == told
        if told:
            assert f"low.wav has a sample rate of {RATE // 2:,} Hz" in said
            assert f"from {RATE // 4:,} to {RATE // 2:,} Hz" in said
    predictor = Predictor(run)
    predictor.inputs = replace(predictor.inputs, lowest_rate=RATE)
    predictor(noise(0.3), RATE // 2)
    assert "<array> has a sample rate of" in capsys.readouterr().err
    for name, told in (("same", False), ("low", True)):  # a rate that is given is that of arrays
        predictor = Predictor(run)
        predictor.inputs = replace(predictor.inputs, lowest_rate=RATE)
        predictor(tmp_path / f"{name}.wav", RATE // 4 if name == "same" else RATE)
        assert ("has a sample rate of" in capsys.readouterr().err) == told
    with pytest.raises(ConfigError, match="sample_rate='8000'; expected"):
        predictor(noise(0.3), "8000")  # type: ignore[arg-type]
    low = tmp_path / "low.wav"
    for use, name in (
        (lambda one: detect(one, [low]), "low.wav"),
        (lambda one: list(open_stream(one)([noise(0.3)], RATE // 2)), "<array>"),
    ):
        predictor = Predictor(run)
        predictor.inputs = replace(predictor.inputs, lowest_rate=RATE)
        use(predictor)
        assert f"{name} has a sample rate of" in capsys.readouterr().err


def test_a_long_file_is_the_mean_over_its_windows(run: Path, tmp_path: Path) -> None:
    wave = np.concatenate([noise(0.4), tone(0, np.random.default_rng(1), 0.4), noise(0.1, seed=2)])
    soundfile.write(tmp_path / "long.wav", wave, RATE, subtype="FLOAT")
    predictor = Predictor(run, window=0.2)
    size, hop = round(0.2 * RATE), round(0.1 * RATE)
    parts = [wave[start : start + size] for start in range(0, len(wave) - hop, hop)]
    expected = predictor.probabilities(parts)
    assert expected.std(dim=0).max() > 1e-2  # windows differ, so the mean says something
    one = predictor(tmp_path / "long.wav")
    assert one.windows == len(parts) == 8
    power = torch.tensor([part.var() for part in parts])
    assert power.max() > 1.5 * power.min()
    mean = power @ expected / power.sum()
    np.testing.assert_allclose(one.probabilities, mean, atol=1e-6)
    shifted = predictor(wave + np.float32(1), RATE)  # a DC offset is no power
    np.testing.assert_allclose(shifted.probabilities, mean, atol=1e-3)
    assert np.abs(expected.mean(dim=0).numpy() - mean.numpy()).max() > 1e-2
    # Silent windows are left out.
    padded = np.concatenate([wave, np.zeros(7 * size, np.float32)])
    soundfile.write(tmp_path / "padded.wav", padded, RATE, subtype="FLOAT")
    quiet = predictor(tmp_path / "padded.wav")
    assert (quiet.windows, quiet.seconds) == (9, pytest.approx(2.3))
    np.testing.assert_allclose(quiet.probabilities, mean, atol=0.02)  # the ninth is half silent
    whole = Predictor(run, window=2)(tmp_path / "long.wav")
    assert whole.windows == 1
    assert np.abs(whole.probabilities - one.probabilities).max() > 1e-3


def test_silence_is_predicted_only_if_it_was_a_clip(run: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE // 2), RATE)
    predictor = Predictor(run)
    with pytest.raises(AudioError, match="silent"):
        predictor(tmp_path / "a.wav")
    trained = tmp_path / "run"
    shutil.copytree(run, trained)
    replace(predictor.inputs, silent_ok=True).save(trained)
    found = Predictor(trained)(tmp_path / "a.wav").probabilities
    expected = predictor.probabilities([np.zeros(RATE // 2, np.float32)])[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_windows_overlap_as_the_segments_of_the_run(tmp_path: Path) -> None:
    segments = ["segments.seconds=0.2", "segments.hop=0.1"]
    run = make_untrained_run(tmp_path, *segments, longest_seconds=0.2)
    wave = noise(0.5)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    found, starts = Predictor(run)(tmp_path / "a.wav"), np.arange(4) * RATE // 10
    assert found.windows == 4
    expected = Predictor(run).probabilities([wave[i : i + RATE // 5 - 1] for i in starts])
    np.testing.assert_allclose(found.probabilities, expected.mean(dim=0), atol=1e-6)
    # Segments of the run may have been silent, so silent windows count.
    padded = np.concatenate([wave, np.zeros(RATE // 2, np.float32)])
    soundfile.write(tmp_path / "a.wav", padded, RATE, subtype="FLOAT")
    assert Predictor(run)(tmp_path / "a.wav").windows == 9


def test_windows_hold_the_tokens_of_segments(tmp_path: Path) -> None:
    """Here segments are whole tokens, of which another frame would begin another one."""
    segments = ["segments.seconds=0.2", "segments.hop=0.105"]
    tokens = ["tokens.stack=4", "tokens.normalise=global"]  # the same for each part of a clip
    predictor = Predictor(make_untrained_run(tmp_path, *segments, *tokens, longest_seconds=0.2))
    wave = noise(0.615)  # a hop is rounded to 10 frames: 5 segments and a rest
    frames = predictor.front_end.restore(predictor.front_end.extract(wave))
    spans = SegmentConfig(0.2, 0.105).spans(len(frames), 0.01)
    segments_of = [predictor.front_end.tokens(frames[start:stop]) for start, stop in spans]
    [windows] = predictor.windows([wave])
    for window, span, expected in zip(windows[:5], spans, segments_of, strict=False):
        assert window.start == span[0] * 80
        found = predictor.tokens(window.samples, float(wave.mean()))
        assert found.shape == expected.shape == (5, expected.shape[1])
        # At its edges, a window does not see its neighbours.
        np.testing.assert_allclose(found[1:-1], expected[1:-1], rtol=1e-4, atol=1e-3)


def test_windows_leave_nothing_out_where_segments_lie_apart(tmp_path: Path) -> None:
    segments = ["segments.seconds=0.1", "segments.hop=0.25"]
    predictor = Predictor(make_untrained_run(tmp_path, *segments, longest_seconds=0.1))
    [windows] = predictor.windows([noise(0.6)])
    assert [window.start for window in windows] == [800 * number for number in range(6)]


def test_segments_that_are_longer_than_all_clips_cut_none(tmp_path: Path) -> None:
    predictor = Predictor(make_untrained_run(tmp_path, "segments.seconds=2", longest_seconds=0.503))
    wave = noise(0.503)
    found = predictor(wave, RATE)
    assert found.windows == 1
    np.testing.assert_allclose(found.probabilities, predictor.probabilities([wave])[0], atol=1e-6)


def test_the_temperature_divides_the_logits(run: Path, tmp_path: Path) -> None:
    """Of a window its own, of a long file those of the mean over windows."""
    soundfile.write(tmp_path / "long.wav", noise(0.9), RATE, subtype="FLOAT")
    plain, warm = Predictor(run, window=0.2), Predictor(run, window=0.2)
    warm.inputs = replace(warm.inputs, temperature=2.0)
    for one in (
        lambda predictor: predictor(tmp_path / "long.wav").probabilities,
        lambda predictor: predictor.probabilities([noise(0.2)])[0].numpy(),
    ):
        roots = np.sqrt(one(plain))
        np.testing.assert_allclose(one(warm), roots / roots.sum(), atol=1e-6)


def test_files_of_a_group_are_aligned(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All given files or those of each folder, window by window; the output keeps their order."""
    names = [f"{folder}/{number}.wav" for number in range(2) for folder in "ab"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, noise(0.3, seed=number), RATE, subtype="FLOAT")
    paths = [tmp_path / name for name in names]
    predictor = Predictor(run, window=0.2)
    plain = torch.cat([p.windows for p in embedded(predictor, paths)])
    with pytest.raises(CheckpointError, match="not finished; continue it with resume="):
        predict_files(predictor, paths, "all")
    alignment = Alignment(plain.mean(dim=0) + 3, plain.std(dim=0) * 2)
    predictor.inputs = replace(predictor.inputs, alignment=alignment)
    for align, groups in (("all", [paths]), ("folder", [paths[::2], paths[1::2]])):
        found, bad = predict_files(predictor, [*paths, Path("nowhere.wav")], align)
        assert [one.path for one in found] == paths
        assert [path for path, _ in bad] == [Path("nowhere.wav")]
        by_path = {one.path: one.probabilities for one in found}
        for group in groups:
            windows = torch.cat([p.windows for p in embedded(predictor, group)])
            with torch.inference_mode():
                owners = torch.arange(len(group)).repeat_interleave(2)
                chances = predictor.model.classify(alignment(windows, owners)).softmax(dim=1)
            weights = torch.stack([p.weights for p in embedded(predictor, group)])
            assert (weights[:, 0] / weights[:, 1] - 1).abs().max() > 0.01
            weights = (weights / weights.sum(dim=1, keepdim=True)).unsqueeze(-1)
            expected = (weights * chances.view(len(group), 2, -1)).sum(dim=1)
            for path, row in zip(group, expected, strict=True):
                np.testing.assert_allclose(by_path[path], row, atol=1e-5)
                assert np.abs(by_path[path] - predictor(path).probabilities).max() > 1e-3
    predictor.inputs = replace(predictor.inputs, multi_label=True)
    with pytest.raises(ConfigError, match="several classes"):
        predict_files(predictor, paths, "all")
    with pytest.raises(SystemExit, match="not finished; continue it with resume="):
        main(["predict", str(run), "nowhere.wav", "--align", "all"])
    other = Alignment(torch.zeros(3), torch.ones(3))
    predictor.inputs = replace(predictor.inputs, alignment=other, multi_label=False)
    with pytest.raises(CheckpointError, match=r"embeddings of 3 values, but the model's have \d+"):
        predict_files(predictor, paths, "all")


def embedded(predictor: Predictor, paths: list[Path]) -> list[EmbeddedSound]:
    return [predictor.embed_windows(path) for path in paths]


def test_clips_shorter_than_a_hop_of_the_front_end(tmp_path: Path) -> None:
    run = make_untrained_run(tmp_path, "tokens.hop=0.2", longest_seconds=0.1)
    predictor = Predictor(run)
    assert predictor.window_seconds == predictor.event_seconds == 0.2
    soundfile.write(tmp_path / "a.wav", noise(0.5), RATE)
    [recording], bad = detect(predictor, [tmp_path / "a.wav"])
    assert not bad
    assert recording.seconds == pytest.approx(0.5)


def test_an_impossible_window_is_named(run: Path) -> None:
    for window in (0.0, -1.0, float("inf"), float("nan"), 1e-5):
        with pytest.raises(ConfigError, match="window="):
            Predictor(run, window)


def test_bad_files_are_named_and_stop_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = make_bad_clips(tmp_path / "bad")
    soundfile.write(tmp_path / "bad" / "good.wav", noise(0.3), RATE)
    odd = os.fsdecode(b"odd\xff[red]\n.wav")
    soundfile.write(tmp_path / "odd.wav", noise(0.3), RATE)
    os.rename(tmp_path / "odd.wav", tmp_path / "bad" / odd)
    (tmp_path / "bad" / "round").symlink_to(tmp_path / "bad")
    (tmp_path / "none").mkdir()
    arguments = ["predict", str(run), str(tmp_path / "bad"), str(tmp_path / "none"), "nowhere.wav"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--format", "csv"])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert "good.wav" in out
    for name, reason in {**reasons, "nowhere.wav": "no such file", "none": "no audio"}.items():
        [line] = [line for line in err.splitlines() if f"{name}: " in line]
        assert line.startswith("error: ")
        assert reason in line
        assert ("it cannot be classified" in line) == (reason == "silent")
    main([*arguments, "--skip-bad"])
    out, err = capsys.readouterr()
    assert "good.wav" in out
    assert err.count("skipped: ") == len(reasons) + 2 + err.count("odd")
    assert "error" not in err
    for command in ("predict", "detect"):  # nothing at all to show for it
        output = tmp_path / f"{command}.csv"
        options = ["--skip-bad", "--format", "csv", "--output", str(output)]
        with pytest.raises(SystemExit):
            main([command, str(run), "nowhere.wav", *options])
        assert "error: nowhere.wav: no such file" in capsys.readouterr().err
        assert not output.exists()


def test_the_command_writes_every_format(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.3), RATE)
    command = ["predict", str(run), str(tmp_path / "a.wav"), "--top", "2"]
    main([*command, "--window", "0.1", "--unsure", "1"])
    out = capsys.readouterr().out
    assert "longer than 0.1 s are cut into windows" in out
    assert " unsure " in out
    main([*command, "--format", "json", "--output", str(tmp_path / "a.json")])
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["window_seconds"] == 0.5
    [one] = found["predictions"]
    assert one["windows"] == 1
    main([*command, "--format", "csv"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert [row["class"] for row in rows] == [entry["class"] for entry in one["classes"]]


def test_a_run_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run's folder"):
        Predictor(tmp_path)
    other = make_untrained_run(tmp_path)
    shutil.copytree(other, tmp_path / "all" / "fold-1")
    with pytest.raises(
        CheckpointError, match=r"all holds the runs of several folds.*such as .*all/fold-1"
    ):
        Predictor(tmp_path / "all")
    (other / "report.json").write_text(json.dumps({"best_epoch": 2}))
    with pytest.raises(CheckpointError, match=r"checkpoint of epoch 2, .*Restore that of epoch 2;"):
        Predictor(other)
    (other / "report.json").write_text(json.dumps({"best_epoch": 1}))
    shutil.copytree(other / "checkpoints" / "best-0001", other / "checkpoints" / "best-0003")
    assert weights_folder(other).name == "best-0001"  # as measured
    shutil.rmtree(other / "checkpoints" / "best-0003")
    (other / "report.json").unlink()
    checkpoint = other / "checkpoints" / "best-0001"
    shutil.copy(other / "config.yaml", checkpoint)  # as training does
    with pytest.raises(CheckpointError, match=r"best-0001 is a checkpoint; name its run, .*untrai"):
        Predictor(checkpoint)
    content = json.loads((other / INPUTS).read_text())
    (other / INPUTS).write_text(json.dumps({**content, "classes": ["one"]}))
    with pytest.raises(CheckpointError, match=r"4 outputs.* 1 classes"):
        Predictor(other)
    short = {**content, "mean": content["mean"][:5], "std": content["std"][:5]}
    (other / INPUTS).write_text(json.dumps(short))
    with pytest.raises(CheckpointError, match=r"normalises 5 bands, but the run has 20"):
        Predictor(other)
    huge = {**content, "mean": [1e30] * 20}
    (other / INPUTS).write_text(json.dumps(huge))
    soundfile.write(tmp_path / "a.wav", noise(0.3), RATE)
    with pytest.raises(CheckpointError, match="values that are not finite"):
        Predictor(other)(tmp_path / "a.wav")
    (other / INPUTS).unlink()
    with pytest.raises(CheckpointError, match=r"holds no inputs\.json.*name the folder of a run"):
        Predictor(other)


def test_what_came_before_an_error_is_dropped(run: Path, tmp_path: Path) -> None:
    wave = noise(1.0)
    wave[-1] = np.nan
    soundfile.write(tmp_path / "late.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        Predictor(run, 0.1)(tmp_path / "late.wav")


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFO, no links there")
def test_every_bad_file_is_named_and_the_good_one_predicted(run: Path, tmp_path: Path) -> None:
    """No bad file stops a prediction, hangs it, or gets a class."""
    reasons = make_bad_audio(tmp_path)
    good = tmp_path / "good.wav"
    good.write_bytes(wav(b"\0\x10\0\xf0" * 800))
    predictions, bad = predict_files(Predictor(run), [*(tmp_path / name for name in reasons), good])
    assert [prediction.path for prediction in predictions] == [good]
    said = dict(bad)
    wrong = {name: said.get(tmp_path / name) for name, reason in reasons.items()
             if not says(said.get(tmp_path / name) or "", reason)}  # fmt: skip
    assert not wrong


def test_a_file_without_enough_memory_stops_no_other() -> None:
    def lacking(path: Path) -> None:
        if path.name == "large.wav":
            torch.empty(1 << 60, dtype=torch.uint8)
        raise RuntimeError("a fault")

    found, bad = predict_files(lacking, [Path("large.wav")])  # type: ignore[arg-type]
    assert not found
    assert "can't allocate memory" in bad[0][1]
    with pytest.raises(RuntimeError, match="a fault"):
        predict_files(lacking, [Path("a.wav")])  # type: ignore[arg-type]
