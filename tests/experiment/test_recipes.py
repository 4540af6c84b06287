"""Every recipe: its configurations instantiate, and it runs end to end on a tiny data set."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torchaudio.datasets import gtzan

import spaudio.conf
from spaudio.cli import main
from spaudio.experiment.model import encoder_config, load_models
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.language import LanguageModel
from spaudio.report.text_report import TEXT_FILES
from spaudio.report.classification_report import FIGURES, FILES
from spaudio.tokens.augment import AugmentConfig
from spaudio.tokens.front_end import read_tokens
from spaudio.train.config import OptimConfig, TrainerConfig
from tests.experiment.conftest import ROOT, Run
from tests.fixtures import tiny_audio, tiny_corpora, tiny_folds
from tests.fixtures.tiny_run import compose
from tests.fixtures.tiny_text import write_text

CONF = Path(spaudio.conf.__file__).parent
RECIPES = sorted(path.parent.name for path in (ROOT / "recipes").glob("*/run.py"))
CHOICES = [
    (folder.name, file.stem)
    for folder in sorted(CONF.iterdir())
    if folder.is_dir() and folder.name != "__pycache__"
    for file in sorted(folder.glob("*.yaml"))
]


def tiny_fsdd(folder: Path) -> list[str]:
    return [f"source={tiny_audio.make_fsdd_zip(folder / 'fsdd.zip')}"]


def tiny_folder(folder: Path) -> list[str]:
    made = tiny_audio.make_class_folders(folder / "sounds")
    return [f"source={made}", r"group_regex='(g\d+)_'"]


def tiny_notes(_: Path) -> list[str]:
    return ["families=[organ,brass]", "programs_per_family=3", "num_pitches=3", "num_velocities=2"]


def tiny_text8(folder: Path) -> list[str]:
    return [f"corpus={write_text(folder / 'tiny.txt.xz')}", "steps_per_epoch=5", "context=32",
            "eval.stride=16", "eval.windows=8"]  # fmt: skip


def tiny_esc50(folder: Path) -> list[str]:
    return [f"source={tiny_folds.make_esc50(folder / 'esc')}", "subset=esc10"]


def tiny_urbansound8k(folder: Path) -> list[str]:
    return [f"source={tiny_folds.make_urbansound8k(folder / 'us8k', clips=1)}"]


def tiny_audiomnist(folder: Path) -> list[str]:
    two_a_fold = [26, 52, 28, 56, 36, 57, 43, 58, 12, 47]
    made = tiny_folds.make_audiomnist(folder / "digits", speakers=two_a_fold)
    return [f"source={made}", "skip_bad=true"]


def tiny_gtzan(folder: Path) -> list[str]:
    """Three genres, nine tracks of each; one is the damaged one."""
    splits = (gtzan.filtered_train, gtzan.filtered_valid, gtzan.filtered_test)
    tracks = [
        track
        for split in splits
        for genre in ("blues", "jazz", "rock")
        for track in [name for name in split if name.startswith(genre)][:3]
    ]
    made = tiny_folds.make_gtzan(folder / "gtzan", tracks, gtzan.gtzan_genres, suffix="wav")
    (made / "genres/jazz/jazz.00054.wav").write_bytes(b"damaged" * 1000)
    return [f"source={made}", "skip_bad=true", "segments.seconds=0.5"]


def tiny_speech_commands(folder: Path) -> list[str]:
    made = tiny_corpora.make_speech_commands(folder / "words")
    tiny_corpora.spoil(made / "cat" / "00000000_nohash_0.wav")
    return [f"source={made}", "task=v2-12", "skip_bad=true"]


def tiny_nsynth(folder: Path) -> list[str]:
    return [f"source={tiny_corpora.make_nsynth(folder / 'nsynth')}"]


def tiny_librispeech(folder: Path) -> list[str]:
    return [f"source={tiny_corpora.make_librispeech(folder / 'librispeech')}"]


def tiny_fsd50k(folder: Path) -> list[str]:
    return [f"source={tiny_corpora.make_fsd50k(folder / 'fsd50k')}"]


# How each recipe comes to its tiny data set. A recipe that is not here fails the suite.
TINY = {
    "audiomnist": tiny_audiomnist,
    "esc50": tiny_esc50,
    "folder": tiny_folder,
    "fsd50k": tiny_fsd50k,
    "fsdd": tiny_fsdd,
    "gtzan": tiny_gtzan,
    "librispeech_speaker": tiny_librispeech,
    "notes": tiny_notes,
    "nsynth": tiny_nsynth,
    "ravdess": lambda it: [f"source={tiny_folds.make_ravdess(it)}", "skip_bad=true"],
    "speech_commands": tiny_speech_commands,
    "urbansound8k": tiny_urbansound8k,
}
TINY_TEXT = {"text8": tiny_text8}
# What a text recipe chooses from; its own presets beside those of all.
TEXT_CHOICES = [
    *(choice for choice in CHOICES if choice[0] in ("filter", "optim", "preset")),
    *(("preset", preset) for preset in ("tiny", "paper", "base")),
]


def instantiate(config: DictConfig) -> None:
    """Builds everything that a run builds from its settings, but the data."""
    tokens = read_tokens(config.tokens)
    AugmentConfig(**config.augment)
    TrainerConfig(**config.trainer)
    OptimConfig(**config.optim)
    shape = {key: value for key, value in config.model.items() if key != "pooling"}
    Classifier(
        tokens.features, 10, EncoderConfig(**shape), config.filter, config.model.pooling,
        tokens.module(),
    )  # fmt: skip


def test_every_recipe_has_a_debug_run_and_a_readme() -> None:
    assert sorted({**TINY, **TINY_TEXT}) == RECIPES
    for recipe in RECIPES:
        assert (ROOT / "recipes" / recipe / "README.md").is_file()


@pytest.mark.parametrize("recipe", TINY)
@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_of_every_recipe_instantiates(recipe: str, group: str, choice: str) -> None:
    if group == "model" and choice != "tiny":
        # Large models only have to be described here; building them is slow.
        config = compose(recipe, f"{group}={choice}")
        EncoderConfig(**{k: v for k, v in config.model.items() if k != "pooling"})
        return
    small = () if group == "model" else ("model=tiny",)
    instantiate(compose(recipe, *small, f"{group}={choice}"))


@pytest.mark.parametrize("recipe", TINY_TEXT)
@pytest.mark.parametrize(("group", "choice"), TEXT_CHOICES)
def test_every_choice_of_every_text_recipe_instantiates(
    recipe: str, group: str, choice: str
) -> None:
    config = compose(recipe, f"{group}={choice}")
    TrainerConfig(**config.trainer)
    OptimConfig(**config.optim)
    shape = encoder_config(config)
    assert shape.causal
    if choice != "base":  # slow to build
        LanguageModel(27, shape, config.filter)


@pytest.mark.parametrize("recipe", TINY)
def test_debug_runs_end_to_end(recipe: str, tmp_path: Path, run_recipe: Run) -> None:
    tiny = TINY[recipe](tmp_path)
    done = run_recipe(recipe, "preset=debug", "filter=bank", "run_id=first", *tiny)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / recipe / "first"
    report = json.loads((run / "report.json").read_text())
    for name in FILES:
        assert (run / name).stat().st_size > 0, name
    assert (run / f"{FIGURES[report['metric']]}.png").stat().st_size > 0
    assert (run / "checkpoints").is_dir()
    assert report["recipe"] == recipe
    assert report["filter"]["name"] == "bank"
    reached = report["test"][report["metric"]]
    if report["metric"] == "accuracy":
        assert 0 <= report["test"]["interval"][0] <= reached
        assert reached <= report["test"]["interval"][1] <= 1
    else:
        assert 0 < report["test"]["auc"] <= 1
    assert 0 < report["floor"]["majority"] <= report["floor"]["svm"] <= 1
    assert 1 <= report["best_epoch"] <= report["epochs"]
    assert 0 < report["filter_params"] < report["num_params"]
    assert set(report["seconds"]) == {"prepare", "train", "test"}
    assert min(report["seconds"].values()) > 0
    assert report["tokens_per_second"] > 0
    assert 0 < report["data_wait"] < 1
    assert report["versions"]["torch"]
    assert report["git_commit"]
    support = sum(row["support"] for row in report["test"]["per_class"].values())
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    several = report["metric"] == "mAP"
    assert sum(len(row["true"].split(",")) if several else 1 for row in rows) == support
    assert len(rows) == report["clips"]["test"]
    config = OmegaConf.load(run / "config.yaml")
    assert config.filter.name == "bank"
    assert config.model.dim == 16  # what debug makes small is what was run
    text = (run / "report.md").read_text()
    for figure in ("filters.png", "path.png"):
        assert (run / figure).stat().st_size > 0
        assert figure in text
    assert f"{reached:.4f}" in text
    # What was left out is said.
    assert (report["skipped"] > 0) == ("skip_bad=true" in tiny) == ("left out" in text)
    assert f"{report['floor']['svm']:.4f}" in text


@pytest.mark.parametrize("recipe", TINY_TEXT)
def test_debug_text_runs_end_to_end(recipe: str, tmp_path: Path, run_recipe: Run) -> None:
    tiny = TINY_TEXT[recipe](tmp_path)
    done = run_recipe(recipe, "preset=debug", "filter=bank", "run_id=first", *tiny)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / recipe / "first"
    for name in (*TEXT_FILES, "filters.png"):
        assert (run / name).stat().st_size > 0, name
    report = json.loads((run / "report.json").read_text())
    assert report["filter"]["name"] == "bank"
    assert report["corpus"]["stand_in"]
    assert report["corpus"]["characters"] == {"train": 18_000, "valid": 1_000, "test": 1_000}
    for split in ("valid", "test"):
        assert report[split]["characters"] == 999  # all but the first
        assert 0 < report[split]["loss"] < 4
        assert report[split]["bits"] == pytest.approx(report[split]["loss"] / math.log(2))
    assert report["steps"] == 10
    assert report["step_flops"] > 0
    assert 0 < report["filter_params"] < report["num_params"]
    text = (run / "report.md").read_text()
    assert "**not text8**" in text
    assert "stride 16" in text
    assert f"{report['test']['bits']:.4f}" in text


def test_waveform_tokens_by_one_override(tmp_path: Path, run_recipe: Run) -> None:
    done = run_recipe(
        "folder", "tokens=waveform", "filter=adaptive", "filter.num_filters=6", "filter.width=8",
        "filter.heads=2", "preset=debug", "augment.mixup=0.4", "augment.warp=0.1", "run_id=first",
        *tiny_folder(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tokens=waveform leaves out augment.warp" in done.stderr
    run = tmp_path / "runs" / "folder" / "first"
    for name in (*FILES, "frontend.png", "filters.png", "mask.png"):
        assert (run / name).stat().st_size > 0, name
    report = json.loads((run / "report.json").read_text())
    assert report["tokens"]["name"] == "waveform"
    assert report["front_end_params"] == 40 * 400
    assert report["token_seconds"] == 0.01
    assert "frontend.png" in (run / "report.md").read_text()
    before, after = load_models(run)
    assert before.front_end is not None
    assert after.front_end is not None
    assert not torch.equal(before.front_end.filters.weight, after.front_end.filters.weight)
    assert after.front_end.mean.abs().sum() > 0  # measured, and kept with the weights
    (run / "frontend.png").unlink()
    main(["filters", str(run)])
    assert (run / "frontend.png").stat().st_size > 0
    # Stopped before its first checkpoint, a run begins anew, and measures its front-end as well.
    again = run.with_name("again")
    again.mkdir()
    shutil.copy(run / "config.yaml", again)
    done = run_recipe("folder", f"resume={again}")
    assert done.returncode == 0, done.stderr
    assert (again / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


@pytest.mark.parametrize("recipe", TINY)
def test_waveform_tokens_take_what_is_their_own_of_every_recipe(recipe: str) -> None:
    config = compose(recipe, "tokens=waveform")
    tokens, plain = read_tokens(config.tokens), read_tokens(compose(recipe).tokens)
    assert tokens.module() is not None
    assert tokens.stack == plain.stack
    assert tokens.front_end.hop_samples == plain.front_end.hop_samples
    assert tokens.front_end.sample_rate == plain.front_end.sample_rate
