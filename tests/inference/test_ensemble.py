"""Several models together: the mean of their logits, whatever their rates and order of classes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import spaudio
from spaudio.cli import main
from spaudio.errors import ConfigError
from spaudio.experiment.inputs import Inputs
from spaudio.inference.ensemble_weights import choose_weights, combine, fit_weights
from spaudio.report.probabilities import ClipProbabilities, write_probabilities
from spaudio.training.alignment import Alignment
from tests.fixtures.tiny_run import CLASSES, make_untrained_run

RATE = 8000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of the same classes, at 8 and at 16 kHz."""
    folder = tmp_path_factory.mktemp("runs")
    first = make_untrained_run(folder / "a")
    return first, make_untrained_run(folder / "b", "tokens.sample_rate=16000", "tokens.stack=2")


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    wave = 0.2 * np.random.default_rng(0).standard_normal(RATE // 2)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    return tmp_path / "a.wav"


def geometric_mean(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    found = np.sqrt(one.astype(float) * other)
    return np.asarray(found / found.sum())


def test_logits_are_averaged(runs: tuple[Path, Path], sound: Path) -> None:
    models = [spaudio.load(run) for run in runs]
    one, other = (model.predict(sound).probabilities for model in models)
    assert np.abs(one - other).max() > 0.05
    both = spaudio.Ensemble(models)
    found = both.predict(sound)
    np.testing.assert_allclose(found.probabilities, geometric_mean(one, other), rtol=1e-4)
    assert found.path == sound
    assert both.classes == tuple(found.classes) == CLASSES
    wave, rate = soundfile.read(sound, dtype="float32")
    [again] = both.predict([wave], rate)
    np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-3)


def test_each_model_aligns_the_sounds(
    runs: tuple[Path, Path], sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(sounds := tmp_path / "b.wav", soundfile.read(sound)[0][::-1] ** 3, RATE)
    files, models = [sound, sounds], []
    for number, run in enumerate(runs):
        shutil.copytree(run, folder := tmp_path / f"run-{number}")
        embedded = torch.from_numpy(spaudio.load(run).embed(files))
        alignment = Alignment(embedded.mean(dim=0) + 3, embedded.std(dim=0) * 2)
        replace(Inputs.load(run), alignment=alignment).save(folder)
        models.append(spaudio.load(folder))
    both = spaudio.Ensemble(models)
    each = zip(*(model.predict(files, align=True) for model in models), strict=True)
    expected = [geometric_mean(*(one.probabilities for one in pair)) for pair in each]
    found = [one.probabilities for one in both.predict(files, align=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    plain = [one.probabilities for one in both.predict(files)]
    assert np.abs(np.subtract(plain, found)).max() > 0.01
    command = ["predict", str(tmp_path / "run-0"), *map(str, files), "--align", "all"]
    main([*command, "--with", str(tmp_path / "run-1"), "--format", "json", "--top", "4"])
    for one, row in zip(json.loads(capsys.readouterr().out)["predictions"], found, strict=True):
        said = {each["class"]: each["probability"] for each in one["classes"]}
        assert said == pytest.approx(dict(zip(CLASSES, row.tolist(), strict=True)), abs=1e-5)


def test_several_labels_have_probabilities_of_their_own() -> None:
    chances = torch.tensor([[[0.5, 0.9, 0.01]], [[0.8, 0.9, 0.99]]])
    odds = (chances / (1 - chances)).prod(dim=0).sqrt()
    found = combine(chances, [0.5, 0.5], multi_label=True)
    torch.testing.assert_close(found, odds / (1 + odds))
    certain = combine(torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]), [0.5, 0.5], multi_label=False)
    assert certain.isfinite().all()  # also of probabilities that were rounded to 0 or 1


def noisy(labels: torch.Tensor, scale: float, seed: int) -> ClipProbabilities:
    """A model whose logits favour the label, with noise of standard deviation `scale`."""
    torch.manual_seed(seed)
    logits = 2 * torch.nn.functional.one_hot(labels, 4) + scale * torch.randn(len(labels), 4)
    clips = [f"{i}.wav" for i in range(len(labels))]
    return ClipProbabilities(clips, [CLASSES[i] for i in labels], CLASSES, logits.softmax(dim=1))


def test_weights_are_those_of_the_likeliest_labels() -> None:
    """With independent noise, logits are best weighted by 1 / variance: here by 1 and 1 / 4."""
    labels = torch.arange(4000) % 4
    weights = fit_weights([noisy(labels, 1.5, 1), noisy(labels, 3, 2)], multi_label=False)
    assert weights[0] / weights[1] == pytest.approx(4, rel=0.15)
    assert weights[0] == pytest.approx(2 / 1.5**2, rel=0.15)  # which also calibrates them
    useless = noisy(labels[torch.randperm(4000)], 1, 3)
    _, weight = fit_weights(
        [noisy(labels, 1.5, 1), ClipProbabilities(useless.clips, [CLASSES[i] for i in labels],
                                                  CLASSES, useless.values)], multi_label=False,
    )  # fmt: skip
    assert weight == pytest.approx(0, abs=0.1)


def test_few_clips_do_not_make_certain_models_uncertain() -> None:
    labels = torch.arange(6) % 4
    certain = noisy(labels, 0.1, 0)
    logits = 4 * certain.values.log()
    certain = replace(certain, values=logits.softmax(dim=1))
    for one in ([certain], [certain, certain]):
        weights = fit_weights(one, multi_label=False)
        assert 0.7 < sum(weights) < 1.3
        assert max(weights) == pytest.approx(min(weights), abs=1e-3)


def test_models_that_are_worse_than_chance_keep_some_weight() -> None:
    """With weights of 0, all classes would be equally probable."""
    labels = torch.arange(60) % 3
    torch.manual_seed(0)
    models = []
    for _ in range(2):
        logits = -3 * torch.nn.functional.one_hot(labels, 4) + torch.randn(60, 4)
        one = noisy(labels, 1, 0)
        models.append(replace(one, values=logits.softmax(dim=1)))
    assert 0 < sum(fit_weights(models, multi_label=False)) < 0.3


def test_weights_are_fitted_to_the_same_clips_and_classes_by_name() -> None:
    labels = torch.arange(400) % 4
    one, two = noisy(labels, 1.5, 1), noisy(labels, 3, 2)
    expected = fit_weights([one, two], multi_label=False)
    turned = replace(two, classes=two.classes[::-1], values=two.values.flip(1))
    assert fit_weights([one, turned], multi_label=False) == pytest.approx(expected, abs=1e-3)
    for other in (replace(two, clips=two.clips[::-1]), replace(two, labels=two.labels[::-1])):
        weights, why = choose_weights([{"valid": one}, {"valid": other}], multi_label=False)
        assert weights == [0.5, 0.5]
        assert "validated on different clips or labels" in why


def test_weights_come_from_the_validation_clips_of_the_runs(
    runs: tuple[Path, Path], sound: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    labels = torch.arange(400) % 4
    for run, folder, scale in zip(runs, folders, (1.5, 3.0), strict=True):
        shutil.copytree(run, folder)
        valid = noisy(labels, scale, int(scale))
        write_probabilities(folder / "probabilities.csv", {"valid": valid, "test": valid})
    both = spaudio.Ensemble([spaudio.load(folder) for folder in folders])
    assert both.source == "weights were fitted on 400 validation clips"
    assert both.weights[0] > 2 * both.weights[1] > 0
    each = torch.stack([torch.from_numpy(m.predict(sound).probabilities) for m in both.models])
    expected = combine(each[:, None], both.weights, multi_label=False)[0]
    np.testing.assert_allclose(both.predict(sound).probabilities, expected, atol=1e-6)
    equal = spaudio.Ensemble(both.models, weights=[0.5, 0.5])
    np.testing.assert_allclose(
        equal.predict(sound).probabilities, geometric_mean(*each.numpy()), rtol=1e-4
    )
    with pytest.raises(ConfigError, match="expected 2 numbers that are not negative"):
        spaudio.Ensemble(both.models, weights=[0.5, -0.5])
    # Clips that a model was trained on, or that only one has seen, say nothing.
    for splits in ({"test": valid}, {"valid": noisy(labels[1:], 1, 1), "test": valid}):
        write_probabilities(folders[1] / "probabilities.csv", splits)
        found = spaudio.Ensemble(both.models)
        assert found.weights == [0.5, 0.5]
        assert found.source.startswith("all models have the same weight: ")


def test_classes_are_matched_by_name(runs: tuple[Path, Path], sound: Path, tmp_path: Path) -> None:
    other = tmp_path / "renamed"
    shutil.copytree(runs[1], other)
    inputs = Inputs.load(other)
    replace(inputs, classes=CLASSES[::-1]).save(other)
    models = [spaudio.load(run) for run in (runs[0], other)]
    one, two = (model.predict(sound) for model in models)
    found = spaudio.Ensemble(models).predict(sound)
    assert tuple(found.classes) == CLASSES
    expected = geometric_mean(one.probabilities, two.probabilities[::-1])
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4)


def test_models_that_cannot_be_combined(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other, several = tmp_path / "other", tmp_path / "several"
    for folder in (other, several):
        shutil.copytree(runs[1], folder)
    inputs = Inputs.load(other)
    replace(inputs, classes=("ant", *CLASSES[1:])).save(other)
    replace(inputs, multi_label=True).save(several)
    first = spaudio.load(runs[0])
    with pytest.raises(ConfigError, match="at least two models; got 1"):
        spaudio.Ensemble([first])
    with pytest.raises(ConfigError, match=r"different classes \(only one has ant, cat\)"):
        spaudio.Ensemble([first, spaudio.load(other)])
    with pytest.raises(ConfigError, match=r"untrained gives each clip one label, .*several sev"):
        spaudio.Ensemble([first, spaudio.load(several)])
    for weights in ([0, 0], [1, -1], [1]):
        with pytest.raises(ConfigError, match=r"weights=.* at least one above 0"):
            spaudio.Ensemble([first, first], weights)
    with pytest.raises(ConfigError, match="align=True takes a list"):
        spaudio.Ensemble([first, first]).predict("a.wav", align=True)  # type: ignore[call-overload]


def test_predict_with_another_model(
    runs: tuple[Path, Path], sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = sound.with_name("b.wav")
    bad.write_bytes(b"not a sound")
    files, form = [str(sound), str(bad)], ["--format", "json", "--top", "4", "--skip-bad"]
    main(["predict", str(runs[0]), *files, "--with", str(runs[1]), *form])
    out, err = capsys.readouterr()
    assert err.count("b.wav") == 1
    assert "together with weights 0.50, 0.50; all models have the same weight: a model" in err
    [one] = json.loads(out)["predictions"]
    found = {each["class"]: each["probability"] for each in one["classes"]}
    expected = spaudio.Ensemble([spaudio.load(run) for run in runs]).predict(sound)
    assert found == pytest.approx(dict(expected.top(4)))


def test_events_are_found_by_all_models(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each window has the combined probabilities, whatever the rates of the models."""
    wave = 0.2 * np.random.default_rng(1).standard_normal(4 * RATE)
    wave[RATE : 2 * RATE] = 0  # silence is no event
    recording = tmp_path / "long.wav"
    soundfile.write(recording, wave.astype(np.float32), RATE)
    models = [spaudio.load(run, window=0.3) for run in runs]
    both = spaudio.Ensemble(models)
    assert both.sample_rate == 2 * RATE
    hop, threshold = 0.25, 0.1
    found = both.detect(recording, hop=hop, threshold=threshold)
    window = both.predict(wave[: round(0.3 * RATE)].astype(np.float32), RATE)
    first = {e.label: e for e in found if e.start == 0}
    assert set(first) == {label for label, p in window.top(4) if p >= threshold}
    assert all(first[label].confidence >= p - 0.02 for label, p in window.top(4) if p >= threshold)
    assert not any(e.start < 1.5 < e.end for e in found)

    for rate in ("8000", -5):
        with pytest.raises(ConfigError, match=f"sample_rate={rate!r}"):
            both.detect(wave, rate)  # type: ignore[arg-type]  # on purpose
    assert "sample rate" not in capsys.readouterr().err

    # A model without weight decides nothing. (At one rate: resampling changes the noise.)
    one = models[0].detect(recording, hop=hop, threshold=threshold)
    alone = spaudio.Ensemble([models[0], models[0]], weights=[1, 0])
    same = alone.detect(recording, hop=hop, threshold=threshold)
    assert [(e.start, e.end, e.label) for e in same] == [(e.start, e.end, e.label) for e in one]
    assert [e.confidence for e in same] == pytest.approx([e.confidence for e in one], rel=1e-4)

    main([
        "detect", str(runs[0]), str(recording), "--with", str(runs[1]), "--window", "0.3", "--hop",
        str(hop), "--threshold", str(threshold),
    ])  # fmt: skip
    told = capsys.readouterr()
    assert "together with weights 0.50, 0.50; all models have the same weight" in told.err
    assert len(told.out.splitlines()) == len(found) + 1
    with pytest.raises(ConfigError, match="hop"):
        both.detect(recording, hop=5)
