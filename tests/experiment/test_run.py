"""One run end to end per task, and what can be done with a finished run."""

import csv
import lzma
import math
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
import yaml
from accelerate import Accelerator

from spaudio.audio.manifest import SPLITS
from spaudio.cli import main
from spaudio.errors import ConfigError
from spaudio.experiment.inputs import Inputs
from spaudio.experiment.load import load_best, load_untrained
from spaudio.experiment.run_folder import read_run_settings
from spaudio.experiment.tasks import open_task
from spaudio.experiment.tasks.classification import _check_positions
from spaudio.model.classifier import Classifier
from spaudio.report.marked_page import PLACE
from spaudio.report.provenance import provenance
from spaudio.report.records import OF_SETTING
from tests import RECIPES
from tests.conftest import RunRecipe, draw_nothing
from tests.fixtures.run_files import AUDIO_FILES, TEXT_FILES
from tests.fixtures.tiny_audio import make_class_folders, spoil
from tests.fixtures.tiny_recipes import TINY, tiny_folder
from tests.fixtures.tiny_run import compose, make_untrained_run, read


def check_report(run: Path, figures: tuple[str, ...]) -> dict[str, Any]:
    """What every report on audio holds; returns it."""
    report: dict[str, Any] = read(run / "report.json")
    text = (run / "report.md").read_text()
    for name in (*AUDIO_FILES, *figures):
        assert (run / name).stat().st_size > 0, name
    for name in figures:
        assert name in text
    assert "could not be drawn" not in text
    assert 0 < report["floor"]["majority"] <= report["floor"]["svm"] <= 1
    assert f"{report['floor']['svm']:.4f}" in text
    assert f"{report['test'][report['metric']]:.4f}" in text
    assert 1 <= report["best_epoch"] <= report["epochs"]
    assert 0 < report["filter_params"] < report["num_params"]
    assert min(report["seconds"][part] for part in ("prepare", "train", "test")) > 0
    assert report["tokens_per_second"] > 0
    assert 0 < report["data_wait"] < 1
    assert report["versions"]["torch"]
    assert all(len(report[fact]) == 64 for fact in OF_SETTING if "." not in fact)
    assert (report["git_commit"] is None) == (provenance()["git_commit"] is None)
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report["clips"]["test"]
    several = report["metric"] == "mAP"
    support = sum(row["support"] for row in report["test"]["per_class"].values())
    assert sum(len(row["true"].split(",")) if several else 1 for row in rows) == support
    return report


def test_one_label(
    tmp_path: Path, run_recipe: RunRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds = make_class_folders(tmp_path / "sounds")
    spoil(next(sounds.rglob("*.wav")))
    # Slower clips: some for training, and the slowest and longest ones for test.
    for name, rate in (("g0_1.flac", 6000), ("g2_3.aiff", 4000)):
        for file in sounds.rglob(name):
            soundfile.write(file, soundfile.read(file)[0], rate)
    done = run_recipe(
        "folder", "preset=debug", "filter=bank", "tokens.stem=none", "tokens.stack=3",
        "tokens.normalise=clip_level", "run_id=one", f"source={sounds}", "skip_bad=true",
        r"group_regex='(g\d+)_'", "validation.fraction=0.3",
    )  # fmt: skip
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "folder" / "one"
    report = check_report(
        run, ("confusion.png", "curves.png", "filters.png", "modulation.png", "trajectory.png")
    )
    assert all(-1 <= r <= 1 for both in report["modulation"].values() for r in both)
    assert "before and after training: layer 0 " in (run / "report.md").read_text()
    assert report["recipe"] == "folder"
    assert report["filter"]["name"] == "bank"
    low, high = report["test"]["interval"]
    assert 0 <= low <= report["test"]["accuracy"] <= high <= 1
    assert report["skipped"] == 1
    assert "left out as unusable: 1 clip\n" in done.err
    assert "the data have a validation split of their own" in done.err
    assert "left out" in (run / "report.md").read_text()
    task, model = open_task(read_run_settings(run), RECIPES / "folder"), load_best(run)
    valid = task.objective.measure(model, task.valid, Accelerator(cpu=True))
    assert report["valid"] == pytest.approx(valid.metrics)
    inputs, data = Inputs.load(run), task.data
    files = {split: [soundfile.info(data.root / clip.path) for clip in data.clips
                     if clip.split == split] for split in SPLITS}  # fmt: skip
    assert inputs.lowest_rate == min(file.samplerate for file in files["train"]) == 6000
    typical = statistics.median(file.duration for file in files["train"])
    assert inputs.typical_seconds == pytest.approx(typical)
    assert inputs.longest_seconds == pytest.approx(max(file.duration for file in files["test"]))
    assert not inputs.silent_ok

    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["filter"]["name"] == "bank"
    assert settings["model"]["dim"] == 16  # what debug makes small is what was run

    # `filters` draws the figure again, `compare` lists the run.
    (run / "filters.png").unlink()
    main(["filters", str(run)])
    assert (run / "filters.png").stat().st_size > 0
    main(["compare", str(run), "--output", str(tmp_path / "table.md")])
    assert "| folder | 1 |" in (tmp_path / "table.md").read_text()
    page = tmp_path / "page.md"
    page.write_text(f"Mine, before `{PLACE}`.\n{PLACE}\nstale\n{PLACE}\nMine too.\n")
    main(["compare", str(run), "--output", str(page), "--force"])
    text = page.read_text()
    assert text.startswith(f"Mine, before `{PLACE}`.\n{PLACE}\n\n| setting |")
    assert text.endswith(f"|\n\n{PLACE}\nMine too.\n")
    assert "stale" not in text


def test_a_learned_front_end_and_a_mask(
    tmp_path: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_recipe(
        "folder", "tokens=waveform", "filter=adaptive", "filter.num_filters=6",
        "filter.mask_width=8", "filter.mask_heads=2", "model.filter_place=attention",
        "model.filter_layers=[1]", "preset=debug", "augment.mixup=0.4", "augment.warp=0.1",
        "run_id=first",
        *tiny_folder(tmp_path),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "tokens=waveform ignores augment.warp" in done.err
    run = tmp_path / "runs" / "folder" / "first"
    report = check_report(run, ("frontend.png", "filters.png", "mask.png"))
    [described] = report["filters"]  # one of two layers has a filter
    assert described.startswith("filter in layer 1: adaptive: centred, ")
    page = (run / "report.html").read_text("utf-8")
    assert f"<li>{described}</li>" in page
    assert "input: waveform, through a learned filterbank; filter: adaptive; " in page
    assert f"- {described}\n" in (run / "report.md").read_text("utf-8")
    assert report["tokens"]["front_end"] == "waveform"
    assert report["front_end_params"] == 40 * 400
    assert report["token_seconds"] == 0.04
    before, after = load_untrained(run), load_best(run)
    assert isinstance(before, Classifier)
    assert isinstance(after, Classifier)
    assert before.front_end is not None
    assert after.front_end is not None
    assert not torch.equal(before.front_end.filters.weight, after.front_end.filters.weight)
    assert after.front_end.mean.abs().sum() > 0  # measured, and kept with the weights
    (run / "frontend.png").unlink()
    main(["filters", str(run)])
    assert (run / "frontend.png").stat().st_size > 0
    # Stopped before its first checkpoint, a run begins anew, and measures its front-end as well.
    draw_nothing(monkeypatch)
    again = run.with_name("again")
    again.mkdir()
    shutil.copy(run / "config.yaml", again)
    done = run_recipe("folder", f"resume={again}")
    assert done.code == 0, done.err
    assert (again / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


def test_the_style_of_samples_is_not_mixed(tmp_path: Path) -> None:
    """MixStyle is for bands."""
    given = (f"source={make_class_folders(tmp_path / 'sounds')}", f"data={tmp_path}")
    for tokens, share in (("waveform", 0), ("spectrogram", 0.8)):
        settings = compose("folder", "preset=debug", f"tokens={tokens}", *given)
        task = open_task(settings, RECIPES / "folder")
        assert task.objective.mixing.mixstyle == share


def test_a_class_of_silence_lets_silence_be_predicted(tmp_path: Path) -> None:
    tiny = (*TINY["speech_commands"](tmp_path), f"data={tmp_path}")
    settings = compose("speech_commands", "task=v2-12", *tiny)
    assert open_task(settings, RECIPES / "folder")._inputs().silent_ok


def test_several_labels(tmp_path: Path, run_recipe: RunRecipe) -> None:
    tiny = TINY["fsd50k"](tmp_path)
    done = run_recipe("fsd50k", "preset=debug", "filter=depthwise", "run_id=first", *tiny)
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "fsd50k" / "first"
    report = check_report(run, ("per_class.png", "trajectory.png"))
    assert report["metric"] == "mAP"
    assert 0 < report["test"]["auc"] <= 1


def test_text(tmp_path: Path, run_recipe: RunRecipe) -> None:
    tiny = TINY["text8"](tmp_path)
    done = run_recipe(
        "text8", "preset=debug", "filter=bank", "run_id=first", "eval.max_characters=600", *tiny
    )
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "text8" / "first"
    for name in (*TEXT_FILES, "filters.png", "trajectory.png"):
        assert (run / name).stat().st_size > 0, name
    task = open_task(read_run_settings(run), RECIPES / "folder")
    assert len(task.valid.dataset) == 8  # eval.windows
    report = read(run / "report.json")
    assert report["filter"]["name"] == "bank"
    assert report["corpus"]["stand_in"]
    assert report["corpus"]["characters"] == {"train": 18_000, "valid": 1_000, "test": 1_000}
    for split in ("valid", "test"):
        assert report[split]["characters"] == 599  # all but the first
        assert 0 < report[split]["loss"] < 4
        assert report[split]["bits"] == pytest.approx(report[split]["loss"] / math.log(2))
    assert report["steps"] == 10
    assert report["step_flops"] > 0
    assert 0 < report["filter_params"] < report["num_params"]
    text = (run / "report.md").read_text()
    assert "**not text8**" in text
    assert "stride 16" in text
    assert f"{report['test']['bits']:.4f}" in text

    (run / "report.json").unlink()
    [corpus] = [one.removeprefix("corpus=") for one in tiny if one.startswith("corpus=")]
    text = lzma.decompress(Path(corpus).read_bytes())
    Path(corpus).write_bytes(lzma.compress(text[::-1]))
    refused = run_recipe("text8", f"resume={run}")
    assert refused.code == 1
    assert f"were trained on another text than corpus={corpus} is now" in refused.err


def test_the_page_of_a_report_is_named(tmp_path: Path, run_recipe: RunRecipe) -> None:
    run = make_untrained_run(tmp_path)
    (run / "report.json").write_text("{}")
    assert f"{run / 'report.md'}\n" in run_recipe("folder", f"resume={run}").err
    (run / "report.html").write_text("page")
    assert f"report.md and {run / 'report.html'}\n" in run_recipe("folder", f"resume={run}").err


def test_more_tokens_than_learned_positions_are_refused() -> None:
    clip = SimpleNamespace(path="long.wav")
    split = SimpleNamespace(longest=lambda: (1, 70), clip=lambda i: clip)
    splits: Any = SimpleNamespace(train=split, valid=split, test=split)
    _check_positions(splits, 70)
    with pytest.raises(ConfigError, match=r"long\.wav has up to 70 tokens, .*max_tokens=69"):
        _check_positions(splits, 69)
