"""``spaudio.train`` and ``spaudio.load``: what a run has measured, on files, arrays and streams."""

import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

import spaudio
from spaudio.errors import AudioError, CheckpointError, ConfigError
from spaudio.experiment.data import AudioData, load_data
from spaudio.experiment.run_folder import read_run_settings
from spaudio.experiment.settings import AudioSettings
from spaudio.inference import call
from spaudio.inference.audio_model import AudioModel
from spaudio.inference.call import Trained
from spaudio.tokens.batch import collate
from spaudio.training.temperature import fit_temperature
from tests import RECIPES, ROOT
from tests.fixtures.tiny_audio import CLASSES


@pytest.fixture(scope="module")
def model(own_run: Path) -> AudioModel:
    loaded: AudioModel = spaudio.load(own_run)
    return loaded


@pytest.fixture
def clips(own_run: Path) -> list[Path]:
    """Four test clips of the run."""
    with (own_run / "predictions.csv").open() as file:
        return [own_run.parents[2] / "sounds" / row["clip"] for row in csv.DictReader(file)][:12:3]


def test_train_returns_the_run(own_run: Path) -> None:
    done = Trained(own_run)
    assert done.report["clips"] == {"train": 36, "valid": 12, "test": 12}
    assert {"confusion", "curves"} <= set(done.figures)
    assert f"{done.report['test']['accuracy']:.4f}" in done._repr_markdown_()
    assert done.model.classes == ("four", "seven", "zero")
    settings = read_run_settings(own_run)
    assert settings.filter.name == "depthwise"
    assert settings.about.licence == "CC BY-SA 4.0"
    with pytest.raises(ConfigError, match="unknown setting 'sead'"):
        spaudio.train("sounds", sead=1)
    with pytest.raises(ConfigError, match=r"optim\.lr=\{1\} is of type set; expected a number"):
        spaudio.train("sounds", optim={"lr": {1}})
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        spaudio.laod  # noqa: B018


@pytest.fixture
def data(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> AudioData:
    """The data of the run."""
    monkeypatch.chdir(own_run.parents[2])
    return load_data(read_run_settings(own_run), RECIPES / "folder")


def test_the_temperature_is_fitted_to_the_validation_split(
    model: AudioModel, data: AudioData
) -> None:
    waves = [soundfile.read(data.root / c.path, dtype="float32")[0] for c in data.valid.clips]
    labels = torch.tensor(data.valid.classes())
    fitted = fit_temperature(model.raw_probabilities(waves), labels)
    assert model.inputs.temperature == pytest.approx(fitted, rel=1e-2)


def test_the_alignment_is_measured_on_the_training_split(
    model: AudioModel, data: AudioData
) -> None:
    embedded = torch.from_numpy(model.embed([data.root / c.path for c in data.train.clips]))
    assert model.inputs.alignment is not None
    mean = model.inputs.alignment.mean
    torch.testing.assert_close(mean, embedded.mean(dim=0), atol=1e-4, rtol=1e-3)


def test_the_report_says_whether_the_model_beats_the_floor(own_run: Path) -> None:
    report = json.loads((own_run / "report.json").read_text())
    beats = report["test"]["accuracy"] > report["floor"]["svm"]
    text = (own_run / "report.md").read_text()
    assert ("does not beat the classical floor" in text) != beats


def test_names_and_models_can_be_looked_at(model: AudioModel) -> None:
    assert {"load", "train", "__version__"} <= set(dir(spaudio))
    assert re.fullmatch(
        r"<AudioModel of 3 classes \(four, seven, zero\): 8,000 Hz, windows of 0\.\d+ s, "
        r"[\d,]+ parameters>",
        repr(model),
    )
    assert model.predict([]) == []
    with pytest.raises(ConfigError, match="at least one"):
        model.embed([])


def test_prediction_is_what_the_evaluation_after_training_was(
    own_run: Path, model: AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features, normalisation, embeddings and probabilities, clip by clip."""
    monkeypatch.chdir(own_run.parents[2])
    settings = read_run_settings(own_run)
    assert isinstance(settings, AudioSettings)
    data = load_data(settings, RECIPES / "folder")
    batch = collate([data.test[0, i] for i in range(len(data.test))])  # padded to the longest
    with torch.inference_mode():
        embedded = model.model.embed(batch.tokens, batch.padding_mask).numpy()
    paths = [data.root / clip.path for clip in data.test.clips]
    for i, path in enumerate(paths):
        wave, rate = soundfile.read(path, dtype="float32")
        assert rate == model.sample_rate
        tokens = model.tokens(wave)
        np.testing.assert_array_equal(tokens, batch.tokens[i, : len(tokens)])
    np.testing.assert_allclose(model.embed(paths), embedded, atol=1e-5)
    with (own_run / "predictions.csv").open() as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    for clip, path, found in zip(data.test.clips, paths, model.predict(paths), strict=True):
        assert found.label == rows[clip.path]["predicted"]
        assert found.confidence == pytest.approx(float(rows[clip.path]["probability"]), abs=1e-5)
        [heard] = model.stream()([soundfile.read(path, dtype="float32")[0]])
        np.testing.assert_allclose(heard.probabilities, found.probabilities, atol=1e-5)
    # The test clips are of one speaker.
    aligned = model.predict(paths, align=True)
    labels = [clip.label for clip in data.test.clips]
    right = np.mean([one.label == label for one, label in zip(aligned, labels, strict=True)])
    assert Trained(own_run).report["aligned"] == {"accuracy": pytest.approx(right), "groups": 1}
    with pytest.raises(ConfigError, match="a list of sounds"):
        model.predict(paths[0], align=True)  # type: ignore[call-overload]


@pytest.mark.parametrize("page", ["README.md", "docs/own_sounds.md"])
def test_the_example_runs(
    page: str, own_run: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings are checked, and a finished run stands in for that which it trains."""
    monkeypatch.setattr(call, "start_run", lambda settings, script: own_run)
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [example] = [block for block in blocks if block.startswith("import spaudio\n")]
    (tmp_path / "runs" / "folder").mkdir(parents=True)
    for name in ("ID", "ID2"):
        (tmp_path / "runs" / "folder" / name).symlink_to(own_run)
    for name, clip in zip(("a.wav", "b.wav"), clips, strict=False):
        (tmp_path / name).symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    wave, rate = soundfile.read(clips[0], dtype="float32")
    exec(example, {"blocks": np.array_split(wave, 5), "sample_rate": rate})
    assert (tmp_path / "birds-model" / "README.md").is_file()


def test_the_examples_of_levels_and_noise_measure_a_run(
    own_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages = [ROOT / "docs" / f"{name}.md" for name in ("defaults", "pretrained")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for recipe in ("esc50", "folder", "fsdd", "ravdess"):
        (tmp_path / "runs" / recipe).mkdir(parents=True)
        (tmp_path / "runs" / recipe / "ID").symlink_to(own_run)
    (tmp_path / "SOURCE").symlink_to(own_run.parents[2] / "sounds")
    monkeypatch.chdir(tmp_path)
    printed = []
    for example in examples:
        if example.startswith("import random\n"):  # the test below
            continue
        exec(example, {})
        printed.append([line.split() for line in capsys.readouterr().out.splitlines()])
    levels, noises, pauses, changes = printed
    assert [level for level, _ in levels] == ["0", "-6", "-12", "-20", "6", "12"]
    assert float(levels[0][1]) == pytest.approx(Trained(own_run).report["test"]["accuracy"])
    expected = [[name, level] for name in ("white", "pink") for level in ("20", "10", "0")]
    assert [noise[:2] for noise in noises] == expected
    assert all(0 <= float(accuracy) <= 1 for _, _, accuracy in noises)
    assert [row[0] for row in pauses] == ["0", "0.1", "0.3", "0.5", "0.5"]
    assert float(pauses[0][2]) == float(levels[0][1])
    assert len(changes) == 5
    assert changes[0] == ["as", "recorded:", levels[0][1]]


def test_the_example_of_few_clips_takes_some_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "pretrained.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(import random\n.*?)```", text, re.DOTALL)
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / "SOURCE" / split / name).mkdir(parents=True)
            for number in range(7):
                (tmp_path / "SOURCE" / split / name / f"{number}.wav").touch()
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    for split, count in (("train", 5), ("test", 7)):
        found = [len(list((tmp_path / "DIR" / split / name).iterdir())) for name in CLASSES]
        assert found == [count] * len(CLASSES)
    assert len({tuple(sorted(os.listdir(f"DIR/train/{name}"))) for name in CLASSES}) > 1


def test_settings_may_be_scalars_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[AudioSettings] = []
    monkeypatch.setattr(call, "start_run", lambda settings, script: started.append(settings))
    spaudio.train(
        np.str_("sounds"),
        seed=np.int64(7),
        page=np.bool_(False),
        filter="bank",
        preset=None,
        **{"optim.lr": np.float64(1e-3), "model.filter_layers": np.arange(2)},
    )
    [settings] = started
    assert (settings.seed, settings.page, settings.optim.lr) == (7, False, 1e-3)
    assert settings.model.filter_layers == [0, 1]
    assert settings.prep_options["source"] == "sounds"


def test_files_arrays_and_tensors_give_the_same(model: AudioModel, clips: list[Path]) -> None:
    waves = [soundfile.read(path)[0] for path in clips]  # float64
    expected = model.predict(clips)
    for given in (
        waves,
        [torch.from_numpy(wave) for wave in waves],
        [wave[None] for wave in waves],
        [wave[:, None] for wave in waves],
    ):
        for one, same in zip(model.predict(given, 8000), expected, strict=True):
            np.testing.assert_allclose(one.probabilities, same.probabilities, atol=1e-6)
            assert (one.seconds, one.label) == (same.seconds, same.label)
    one = model.predict(str(clips[0]))
    assert one.top(3)[0] == (one.label, one.confidence)
    doubled = soxr.resample(waves[0], 8000, 16_000)
    np.testing.assert_allclose(
        model.predict(doubled, 16_000).probabilities, one.probabilities, atol=1e-3
    )
    assert model.embed(clips[0]).shape == model.embed(clips)[0].shape


def test_arrays_that_are_no_sound_are_refused(model: AudioModel) -> None:
    wave = np.sin(np.arange(4000.0))
    for bad, said in (
        (np.stack([wave, wave]), r"shape \(2, 4000\).*; give x\.mean\(axis=0\)$"),
        ((wave * 1000).astype(np.int16), r"type int16.*; give x / 32768$"),
        (np.ones((4000, 2), np.int16), r"; give x\.mean\(axis=1\) / 32768$"),
        (np.zeros((2, 3, 4)), r"full scale at 1\.0$"),
        (wave * 20_000, r"as large as 2e\+04; .* give x / 32768"),
        (torch.ones(9, requires_grad=True), r"a Tensor cannot be converted .*\(.*requires grad"),
        (np.where(wave > 0.9, np.nan, wave), "not finite"),
        (np.zeros(4000), "silent"),
        (wave[:1], "array of 1 samples"),
    ):
        with pytest.raises(AudioError, match=said):
            model.predict(bad, 8000)
    for none in (b"RIFF", io.BytesIO(), 0.5, None):
        with pytest.raises(AudioError, match=f"type {type(none).__name__}; expected the path"):
            model.predict(none)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="sample_rate= is required"):
        model.predict(wave)
    with pytest.raises(ConfigError, match="sample_rate=8; expected"):
        model.predict(wave, 8)
    with pytest.raises(ConfigError, match="sample_rate='8000'; expected"):
        model.predict(wave, "8000")  # type: ignore[call-overload]


def test_an_error_of_the_front_end_names_the_file(
    model: AudioModel, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front-end has the samples alone."""

    def refuse(waveform: object, offset: object = None) -> None:
        raise AudioError("it is too loud")

    monkeypatch.setattr(model.front_end, "extract", refuse)
    for ask in (model.predict, model.embed, model.detect, model.explain):
        with pytest.raises(AudioError, match=f"^{re.escape(str(clips[0]))}: it is too loud$"):
            ask(clips[0])
    with pytest.raises(AudioError, match=r"^it is too loud$"):
        model.predict(np.sin(np.arange(4000.0)), 8000)


def test_device(own_run: Path) -> None:
    assert spaudio.load(own_run, device="cpu").device == torch.device("cpu")
    with pytest.raises(ConfigError, match="device='meta' is not available here; use 'cpu'"):
        spaudio.load(own_run, device="meta")


def test_what_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"runs/folder/x: no such folder; name a run"):
        spaudio.load("runs/folder/x")

    def absent(name: str, **options: object) -> str:
        raise OSError(f"Repository {name} Not Found\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    with pytest.raises(CheckpointError, match=r"a/b: .*\(Repository a/b Not Found\)$"):
        spaudio.load("a/b")
