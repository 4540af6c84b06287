"""Runs with a tiny pretrained encoder: probe, adapters, prediction, resumption, errors."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator

import spaudio
from spaudio.cli import main
from spaudio.errors import CheckpointError, ConfigError
from spaudio.experiment import encoders, folds
from spaudio.experiment.build import build_adapted
from spaudio.experiment.load import load_best
from spaudio.experiment.run_folder import create_run_folder, open_run_folder
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.tasks import adaptation, open_task
from spaudio.experiment.tasks.classification import ClassificationTask
from spaudio.export.write import export_run
from spaudio.filters import FILTERS, find_filters
from spaudio.inference.live import open_stream
from spaudio.inference.predict import Predictor, bases_for
from spaudio.inference.predict_files import predict_files
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.load_encoder import load_encoder
from spaudio.report.figures.report_figures import Figures
from spaudio.report.filter_use import kernel_activity, measure_filter_use
from spaudio.report.fold_report import join_folds, write_fold_report
from spaudio.report.probabilities import read_probabilities
from spaudio.report.run_files import PROBABILITIES
from spaudio.training.loop import TrainingRun
from spaudio.training.probe import refit_head, solve_head
from tests import RECIPES
from tests.conftest import RunRecipe
from tests.fixtures.tiny_audio import make_class_folders
from tests.fixtures.tiny_encoders import save_encoder
from tests.fixtures.tiny_recipes import TINY
from tests.fixtures.tiny_run import compose, make_untrained_run

pytestmark = pytest.mark.usefixtures("blank_figures")
DEBUG = ("preset=debug", "model=pretrained", "run_id=run")


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    return make_class_folders(tmp_path / "sounds")


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("whisper", ()),
        (
            "whisper",
            ("adapt=filters", "filter=adaptive", "filter.num_filters=3", "filter.milliseconds=160"),
        ),
        ("whisper", ("adapt=full", "augment=speech", "augment.noise=0.1")),
        ("wav2vec2", ("adapt=lora", "model.pooling=attention", "augment.mixup=0.5")),
    ],
)
def test_a_run_and_its_predictions(
    encoder: str,
    settings: tuple[str, ...],
    tmp_path: Path,
    sounds: Path,
    run_recipe: RunRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(encoders, "load_encoder", lambda s: (loaded.append(s), load_encoder(s))[1])
    base = save_encoder(encoder, tmp_path / "encoders" / "base")
    given = (*DEBUG, f"source={sounds}", f"model.source={base}", *settings)
    done = run_recipe("folder", *given)
    assert done.code == 0, done.err
    assert loaded == [str(base)]
    assert ("adapt=full ignores augment.noise\n" in done.err) == ("adapt=full" in settings)
    assert "tokens=pretrained ignores" not in done.err
    run = tmp_path / "runs" / "folder" / "run"
    report = json.loads((run / "report.json").read_text())
    assert report["base"]["source"] == str(base)
    assert report["token_seconds"] == {"whisper": 0.02, "wav2vec2": 0.01}[encoder]
    assert 0 < report["trained_params"] < report["num_params"]
    text = (run / "report.md").read_text()
    assert "trained parameters" in text
    assert "Input of the pretrained encoder, `adapt=" in text
    assert ("tokens per second" in text) == (
        "adapt=lora" in settings or "adapt=filters" in settings
    )
    # The head of a probe is fitted: there is no step to time.
    is_probe = not any(one.startswith("adapt=") for one in settings)
    assert (report["step_seconds"] is None) == ("one training step" not in text) == is_probe
    if not is_probe:  # training began from the fitted head, which is kept unless an epoch is better
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [entry["epoch"] for entry in log] == [0, 1, 2]
        assert log[0]["seconds"] > 0
        assert report["valid"]["accuracy"] == max(entry["valid_accuracy"] for entry in log)
    filters = ("adapt=filters" in settings, (run / "filters.png").is_file())
    assert filters[0] == filters[1] == (report["filter_params"] > 0)
    if "filter.milliseconds=160" in settings:
        assert report["filter"]["kernel_size"] == 8
    assert not (run / "mask.png").exists()  # there is no spectrogram to draw it with

    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    predictor = Predictor(run)
    found, bad = predict_files(predictor, [sounds / row["clip"] for row in rows])
    assert not bad
    for row, one in zip(rows, found, strict=True):
        [(label, probability)] = one.top(1)
        assert label == row["predicted"]
        assert probability == pytest.approx(float(row["probability"]), abs=1e-3)
    if encoder == "whisper" and "adapt=filters" in settings:  # an export is compared with the run
        assert export_run(run, "onnx").path == run / "model.onnx"

    # A saved model names no folder of this machine, and loads where the encoder is.
    saved = tmp_path / "saved"
    spaudio.load(run).save_pretrained(saved)
    for path in saved.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path
    with pytest.raises(ConfigError, match=r"a local encoder, base \(SHA-256 \w{12}\).*base="):
        spaudio.load(saved)
    clip = sounds / rows[0]["clip"]
    same = spaudio.load(saved, base=base).predict(clip)
    np.testing.assert_array_equal(same.probabilities, found[0].probabilities)
    main(["predict", str(saved), str(clip), "--base", str(base), "--top", "1"])
    assert found[0].label in capsys.readouterr().out
    new = tmp_path / "new" / found[0].label
    new.mkdir(parents=True)
    shutil.copy(clip, new)
    main(["evaluate", str(saved), "--data", str(new.parent), "--base", str(base)])
    assert "1.000" in capsys.readouterr().out
    plain = make_untrained_run(tmp_path / "plain")
    assert bases_for([plain, run, saved], str(base)) == [None, str(base), str(base)]
    main(["predict", str(run), str(clip), "--with", str(saved), "--base", str(base)])
    assert found[0].label in capsys.readouterr().out
    other = save_encoder("ast" if encoder == "whisper" else "whisper", tmp_path / "other")
    with pytest.raises(CheckpointError, match="trained on an encoder with SHA-256"):
        spaudio.load(saved, base=other)
    if encoder != "whisper":
        export = ["export", str(saved), "--format", "pt2", "--output", str(tmp_path / "m.pt2")]
        with pytest.raises(SystemExit, match="cannot be exported"):
            main([*export, "--base", str(base)])

    # An interrupted run ends with the same weights.
    model = load_best(run)
    (run / "report.json").unlink()
    kept = sorted((run / "checkpoints").glob("last-*"))[:1]
    for folder in (run / "checkpoints").iterdir():
        if kept and folder.name[-4:] > kept[0].name[-4:]:
            shutil.rmtree(folder)
    done = run_recipe("folder", f"resume={run}")
    assert done.code == 0, done.err
    again = load_best(run)
    assert isinstance(again, AdaptedClassifier)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name

    save_encoder(encoder, base, seed=1)
    with pytest.raises(CheckpointError, match="trained on an encoder with SHA-256"):
        load_best(run)


def test_the_fit_of_unequal_classes_has_every_clip_once_and_weights(
    tmp_path: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = make_class_folders(tmp_path / "sounds", groups=10, clips=2)
    for file in (sounds / "hum").rglob("g[2-9]_*"):
        file.unlink()
    base = save_encoder("whisper", tmp_path / "base")
    fitted: list[tuple[Any, ...]] = []

    def spy(
        head: Any, train: Any, valid: Any, objective: Any, where: Any, weights: Any
    ) -> Any:  # fmt: skip
        fitted.append((train, valid, weights))
        return solve_head(head, train, valid, objective, where, weights)

    monkeypatch.setattr(adaptation, "solve_head", spy)
    done = run_recipe(
        "folder", *DEBUG, f"source={sounds}", f"model.source={base}",
        "tokens.sample_rate=8000", "optim.lr=7", "trainer.epochs=3", "augment.gain=2",
        "trainer.label_smoothing=0.1", "augment.mixup=0.3",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (
        "ignores augment.gain, augment.mixup, tokens.sample_rate, optim.lr, trainer.epochs, "
        "trainer.label_smoothing"
    ) in done.err
    [(train, valid, weights)] = fitted
    assert len(train.clips.unique()) == len(train.clips)
    counts = train.labels.bincount() + valid.labels.bincount()
    assert counts.max() > 4 * counts.min()
    torch.testing.assert_close(weights * counts, torch.full_like(weights, counts.float().mean()))
    report = json.loads((tmp_path / "runs/folder/run/report.json").read_text())
    text = (tmp_path / "runs/folder/run/report.md").read_text()
    assert (
        f"penalty {report['penalty']:g} (number {report['best_epoch']} of 9), selected on" in text
    )
    # Over folds, too, a probe has penalties and no epochs or steps.
    (folds := tmp_path / "folds").mkdir()
    run = tmp_path / "runs/folder/run"
    joined = join_folds({"a": run, "b": run})
    write_fold_report(folds, joined, Figures(folds))
    text = (folds / "report.md").read_text()
    assert (
        "the penalty of its head was selected on validation clips of other folds, and the head was "
        "then fitted to all other folds."
    ) in text
    assert "| Penalty | Training, validation and test clips |" in text
    assert f"| {report['penalty']:g} | " in text
    assert "training step" not in text
    assert f"pretrained encoder {base}" in text.replace("\\", "")
    assert joined.report["trained_params"] == report["trained_params"]


def test_clips_of_several_labels(tmp_path: Path, run_recipe: RunRecipe) -> None:
    """The head is fitted as that of a probe, then trained with LoRA."""
    base = save_encoder("whisper", tmp_path / "base")
    given = (*DEBUG, "adapt=lora", f"model.source={base}", "page=false")
    done = run_recipe("fsd50k", *given, *TINY["fsd50k"](tmp_path))
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "fsd50k" / "run"
    report = json.loads((run / "report.json").read_text())
    assert report["metric"] == "mAP"
    assert report["test"]["mAP"] > 0.8  # at random 0.5, the share of clips with a label
    with (run / "predictions.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    found = Predictor(run)(tmp_path / "made" / f"FSD50K.{row['clip']}")
    chances = map(float, row["probability"].split(","))
    expected = dict(zip(row["predicted"].split(","), chances, strict=True))
    assert dict(found.top(4)) == pytest.approx(expected, abs=1e-3)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of every fit of a head, in order."""
    found: list[tuple[Any, ...]] = []

    def spy(*given: Any) -> Any:
        found.append(given)
        return solve_head(*given)

    def spy_again(*given: Any) -> None:
        found.append(given)
        refit_head(*given)

    monkeypatch.setattr(adaptation, "solve_head", spy)
    monkeypatch.setattr(adaptation, "refit_head", spy_again)
    return found


def test_the_penalty_is_chosen_on_clips_that_no_fit_has_seen(
    tmp_path: Path, sounds: Path, fits: list[tuple[Any, ...]]
) -> None:
    """The head is then fitted again, to all clips."""
    base = save_encoder("whisper", tmp_path / "base")
    settings = compose(
        "folder", *DEBUG, f"model.source={base}", "augment=none", "validation.train=true",
        f"source={sounds}", f"data={tmp_path / 'data'}",
    )  # fmt: skip
    task = open_task(settings, RECIPES / "folder")
    assert isinstance(task, ClassificationTask)
    task.fit(task.build_model(), TrainingRun(tmp_path, "", Accelerator(cpu=True)))
    [(_, train, valid, *_), (_, both, *_)] = fits
    clips = task.data.train.clips
    fitted = {clips[i].path for i in train.clips}
    held_out = {clip.path for clip in task.data.valid.clips}
    assert not fitted & held_out
    assert {clips[i].path for i in both.clips} == fitted | held_out
    assert len(both.clips) == len(train.clips) + len(valid.clips)


def test_the_validation_split_is_measured_before_the_head_is_fitted_to_it(
    tmp_path: Path, sounds: Path, run_recipe: RunRecipe, fits: list[tuple[Any, ...]]
) -> None:
    """Penalty and temperature are chosen on held-out clips; the saved head was fitted to them."""
    base = save_encoder("whisper", tmp_path / "base")
    done = run_recipe("folder", *DEBUG, f"model.source={base}", f"source={sounds}")
    assert done.code == 0, done.err
    [(_, _, valid, *_), (head, _, penalty, _)] = fits
    run = tmp_path / "runs" / "folder" / "run"
    report = json.loads((run / "report.json").read_text())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    [chosen] = [entry for entry in log if entry["penalty"] == penalty]
    assert report["valid"]["loss"] == pytest.approx(chosen["valid_loss"], rel=1e-4)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(head(valid.tokens), valid.labels).item()
    assert loss < 0.99 * chosen["valid_loss"]
    assert "before the head was fitted to them" in report["calibration"]["source"]
    model = load_best(run)
    assert isinstance(model, AdaptedClassifier)
    torch.testing.assert_close(model.head.linear.weight, head.linear.weight)
    kept = read_probabilities(run / PROBABILITIES)["valid"]  # for weights of several models
    assert len(kept.clips) == len(valid.clips)


def test_mixed_labels_count_what_is_pooled(tmp_path: Path, sounds: Path) -> None:
    base = save_encoder("whisper", tmp_path / "base")
    settings = compose(
        "folder", "model=pretrained", f"model.source={base}", "adapt=lora", "augment=none",
        f"source={sounds}", f"data={tmp_path / 'data'}",
    )  # fmt: skip
    task = open_task(settings, RECIPES / "folder")
    assert isinstance(task, ClassificationTask)
    assert task.objective.mixing.pooled == task.data.front_end.pooled


def test_what_filters_do_is_measured_without_the_silence_around_clips(tmp_path: Path) -> None:
    """Whisper gets 0.5 s of silence before a clip and 1 s after it."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(3):
            wave = np.zeros(8000)
            wave[4000:4400] = generator.uniform(-0.5, 0.5, 400)
            soundfile.write(tmp_path / "clips" / label / f"{number}.wav", wave, 8000)
    base = save_encoder("whisper", tmp_path / "base")
    settings = compose(
        "folder", "model=pretrained", f"model.source={base}", "adapt=filters", "filter=bank",
        f"source={tmp_path / 'clips'}", f"data={tmp_path / 'data'}",
    )  # fmt: skip
    task = open_task(settings, RECIPES / "folder")
    assert isinstance(task, ClassificationTask)
    model = task.build_model().eval()
    for filter in model.token_filters().values():
        torch.nn.init.ones_(filter.get_parameter("gains"))  # initially zero
    found = measure_filter_use(model, task.data.train, [0, 1], False)
    assert len(found.before) == len(found.after) == 50  # tokens of 20 ms
    shown = found.kernels[0]
    filter, given = model.token_filters()[int(shown.layer.split()[-1])], []
    with filter.register_forward_pre_hook(lambda _, x: given.append(x[0])):
        model(torch.from_numpy(task.data.train.frames(shown.peaks[0].clip))[None])
    activity = kernel_activity(filter, given[0], None)[0, 25:75, shown.number]
    assert shown.peaks[0].token == int(activity.argmax())


def test_segments_are_normalised_as_they_are_fitted(tmp_path: Path, sounds: Path) -> None:
    """The level of a segment is its own, so statistics of whole clips would not fit."""
    settings = compose(
        "folder", "tokens=words", "segments.seconds=0.1", f"source={sounds}",
        f"data={tmp_path / 'data'}", "augment=none",
    )  # fmt: skip
    data = open_task(settings, RECIPES / "folder").data
    segments = [data.train.frames(item) for item in range(len(data.train))]
    frames = np.concatenate(list(map(data.front_end.normalise, segments)))
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-3)


def test_longest_clips_that_are_cut_a_little_still_give_a_window(
    tmp_path: Path, sounds: Path, run_recipe: RunRecipe
) -> None:
    base = save_encoder("whisper", tmp_path / "base")
    done = run_recipe("folder", *DEBUG, f"source={sounds}", f"model.source={base}", "page=false")
    assert done.code == 0, done.err
    file = tmp_path / "runs/folder/run/inputs.json"
    lengths = {"longest_seconds": 30.05, "typical_seconds": 30.02}
    file.write_text(json.dumps(json.loads(file.read_text()) | lengths))
    predictor = Predictor(file.parent)
    open_stream(predictor)
    assert predictor.event_seconds == 30


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    for settings, said in [
        (["model=pretrained"], "needs model.source"),
        (["adapt=probe"], "needs model=pretrained"),
        (["model=pretrained", "model.source=x", "adapt=filters"], "needs a filter"),
        (["model=pretrained", "model.source=x", "filter=bank"], "has no effect with adapt=probe"),
        (["model=pretrained", "model.source=x", "segments.seconds=1"], "reads clips whole"),
        (["model=pretrained", "model.source=x", "model.filter_layers=[1]"], "model.adapt_layers"),
        (
            ["model=pretrained", "model.source=x", "adapt=filters", "filter=haar",
             "filter.milliseconds=80"],
            "filter=haar has no kernel_size",
        ),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            compose("folder", f"source={tmp_path}", *settings)
    own = compose("folder", "model=pretrained", "model.source=x", "adapt=lora", "filter=none")
    assert (own.augment.mel_masks, own.augment.mixup, own.augment.cutmix) == (0, 0.5, 0.3)
    assert (own.trainer.min_steps, own.trainer.label_smoothing) == (0, 0)
    assert (own.optim.lr, own.trainer.ema, own.trainer.epochs) == (3e-3, 0.98, 8)
    whole = compose("folder", "model=pretrained", "model.source=x", "adapt=full")
    assert (whole.augment.warp, whole.augment.crop, whole.trainer.epochs) == (0.1, 0, 16)
    assert whole.optim.lr == 1e-4
    assert (whole.augment.mixup, whole.augment.cutmix, whole.augment.mixstyle) == (0.5, 0, 0)
    part = ("adapt=full", "model.adapt_layers=[1]")
    assert compose("folder", "model=pretrained", "model.source=x", *part).augment.mel_masks == 0
    given = compose("folder", "model=pretrained", "model.source=x", "trainer.epochs=7")
    assert given.trainer.epochs == 7
    frames = compose("fsdd", "model=pretrained", "model.source=x", "preset=frames")
    assert frames.model.pooling == "mean_std"  # that of the preset is for models from scratch
    assert given.augment.mixup == 0  # the probe is fitted
    assert (given.augment.warp, given.augment.mel_masks) == (0, 0)
    absent = compose("folder", "model=pretrained", "model.source=x", "adapt=null")
    probe = compose("folder", "model=pretrained", "model.source=x")
    assert (absent.augment, absent.adapt) == (probe.augment, "probe")


@pytest.mark.parametrize("filter", [name for name in FILTERS if name != "none"])
def test_every_filter_can_be_an_adapter(filter: str, tmp_path: Path) -> None:
    base = save_encoder("whisper", tmp_path / "base")
    pretrained = ("model=pretrained", f"model.source={base}", "adapt=filters",
                  "model.head_lr_scale=0.3")  # fmt: skip
    settings = compose("folder", "source=x", *pretrained, f"filter={filter}")
    assert isinstance(settings, AudioSettings)
    model = build_adapted(settings, classes=3)
    assert len(find_filters(model.base)) == len(model.base.layers)
    assert model.lr_scales == {"head": 0.3}


def test_an_adapter_is_checked_before_clips_are_encoded(tmp_path: Path, sounds: Path) -> None:
    base = save_encoder("whisper", tmp_path / "base")
    given = ["model=pretrained", f"model.source={base}", "adapt=filters", "filter=depthwise"]
    for wrong, said in [("filter.kernel_size=0", "filter: "), ("model.adapt_layers=[7]", "0 to 1")]:
        settings = compose("folder", f"source={sounds}", f"data={tmp_path / 'data'}", *given, wrong)
        with pytest.raises(ConfigError, match=said):
            open_task(settings, RECIPES / "folder")
        assert not (tmp_path / "data").exists()


def test_folds_follow_an_encoder_that_has_moved(tmp_path: Path) -> None:
    base, moved = save_encoder("whisper", tmp_path / "base"), tmp_path / "moved"
    given = ("source=x", "model=pretrained", f"runs={tmp_path}", "run_id=fold-1")
    run = create_run_folder(compose("folder", *given, f"model.source={base}"))
    base.rename(moved)
    now = compose("folder", *given, f"model.source={moved}")
    assert isinstance(now, AudioSettings)
    with pytest.raises(ConfigError, match=r"was run with model\.source"):
        open_run_folder(now, run)
    folds._follow_encoder(run, now)
    assert open_run_folder(now, run) == run
    shutil.copytree(moved, base)  # one that is still there is another one
    folds._follow_encoder(run, compose("folder", *given, f"model.source={base}"))
    assert open_run_folder(now, run) == run


def test_settings_say_what_is_trained_and_what_the_head_reads(tmp_path: Path) -> None:
    base = load_encoder(str(save_encoder("whisper", tmp_path / "base")))  # three states of 16
    given = ("source=x", "model=pretrained", f"model.source={tmp_path / 'base'}")
    some = ("model.adapt_layers=[1]", "model.lora_rank=3")
    for way in (["filters", "filter=bank"], ["lora"], ["bitfit"], ["full"]):
        settings = compose("folder", *given, *some, f"adapt={way[0]}", *way[1:])
        model = build_adapted(settings, 3, base)
        trained = {name: one for name, one in model.base.named_parameters() if one.requires_grad}
        assert trained
        assert all(".layers.1." in f".{name}" for name in trained)
        ranks = {len(one) for name, one in trained.items() if ".lora_A." in name}
        assert ranks == ({3} if way == ["lora"] else set())
    for states, count in (("upper", 2), ("all", 3)):
        read = (f"model.states={states}", "model.combine=")
        concat, summed = (
            build_adapted(compose("folder", *given, read[0], read[1] + how), 3, base).head
            for how in ("concat", "sum")
        )
        assert (concat.mix, concat.linear.in_features) == (None, 2 * 16 * count)
        assert (len(summed.mix), summed.linear.in_features) == (count, 2 * 16)


@pytest.mark.parametrize("adapt", ["probe", "lora", "bitfit"])
def test_what_is_frozen_is_held_once(adapt: str, tmp_path: Path) -> None:
    base = load_encoder(str(save_encoder("whisper", tmp_path / "base")))
    given = ("source=x", "model=pretrained", f"model.source={tmp_path / 'base'}", f"adapt={adapt}")
    settings = compose("folder", *given)
    assert isinstance(settings, AudioSettings)
    model = build_adapted(settings, 3, base)
    held = {parameter.data_ptr() for parameter in base.parameters()}
    for name, parameter in model.base.named_parameters():
        assert (parameter.data_ptr() in held) != parameter.requires_grad, name
