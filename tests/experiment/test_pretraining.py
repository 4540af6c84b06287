"""Pretraining as a stage of a run: on which clips, what is kept, and that it can be resumed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from spaudio.audio.split import hold_out_validation
from spaudio.errors import ConfigError
from spaudio.experiment import pretraining
from spaudio.experiment.pretraining import Pretraining
from spaudio.experiment.processes import make_accelerator
from spaudio.experiment.settings import PretrainConfig
from spaudio.experiment.tasks import open_task
from spaudio.experiment.tasks.classification import ClassificationTask
from spaudio.model.pooling import AttentionPooling
from spaudio.tokens.normalise import BandNormaliser
from spaudio.training.checkpoint import PRETRAINING, TRAINING, find_checkpoint, load_weights
from spaudio.training.log import read_log
from spaudio.training.loop import TrainingRun
from spaudio.training.masked_prediction import MaskedPrediction
from spaudio.training.objective import Classification
from spaudio.training.optim import schedule
from tests import RECIPES
from tests.conftest import RunRecipe
from tests.fixtures.tiny_audio import make_class_folders
from tests.fixtures.tiny_run import compose
from tests.fixtures.toy import last

SETTINGS = ("preset=debug", "trainer.epochs=1", "pretrain=masked", "pretrain.steps=4", "page=false")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_class_folders(tmp_path_factory.mktemp("audio") / "sounds", groups=4, clips=2)


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Makes a call of a function an interruption."""
    function, calls = getattr(owner, name), 0

    def stopping(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return function(*args, **options)

    monkeypatch.setattr(owner, name, stopping)


def noting_seeds(loss: Any, seeds: list[list[int]]) -> Any:
    """An objective's loss that notes the seeds of its random numbers."""

    def noting(self: Any, model: Any, batch: Any, rng: np.random.Generator) -> Any:
        seeds.append(rng.bit_generator.seed_seq.entropy)  # type: ignore[attr-defined]
        return loss(self, model, batch, rng)

    return noting


def train(run: Path, *settings: str) -> Path:
    """Trains as a run does, without its measurement and report."""
    chosen = compose("folder", *settings)
    accelerator = make_accelerator(chosen.trainer)
    task = open_task(chosen, RECIPES / "folder")
    task.fit(task.build_model(), TrainingRun(run, "", accelerator))
    return run


def test_a_run_that_is_stopped_anywhere_ends_with_the_same_bits(
    tmp_path: Path,
    sounds: Path,
    run_recipe: RunRecipe,
    blank_figures: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = (*SETTINGS, f"source={sounds}", "optim.lr=0.02", "seed=5")
    seeds: list[list[int]] = []
    for objective in (MaskedPrediction, Classification):
        monkeypatch.setattr(objective, "loss", noting_seeds(objective.loss, seeds))
    with monkeypatch.context() as patch:
        stop_at(patch, MaskedPrediction, "measure", 2)
        assert run_recipe("folder", *settings, "run_id=run").code == 130
    run = tmp_path / "runs" / "folder" / "run"
    assert not list((run / "checkpoints").glob("last-*"))
    torch.manual_seed(99)
    done = run_recipe("folder", f"resume={run}")
    assert done.code == 0, done.err
    assert "pretrain=masked: " in done.err

    whole, between = tmp_path / "whole", tmp_path / "between"
    train(whole, *settings)
    with monkeypatch.context() as patch:
        stop_at(patch, pretraining, "set_seed", 1)
        with pytest.raises(KeyboardInterrupt):
            train(between, *settings)
    train(between, *settings)
    expected, losses = last(whole), [r["valid_loss"] for r in read_log(whole, PRETRAINING.log)]
    for resumed in (run, between):
        found = last(resumed)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert [r["valid_loss"] for r in read_log(resumed, PRETRAINING.log)] == losses

    # Both stages have the rate and the seed of the settings.
    optim = compose("folder", *settings).optim
    for log in (PRETRAINING.log, TRAINING.log):
        final = read_log(whole, log)[-1]
        assert final["lr"] == schedule(final["step"] - 1, final["step"], optim)
    assert {seed for seed, _ in seeds} == {5}

    # Training began from the pretrained weights, but for the head.
    pretrained = load_weights(find_checkpoint(run / "checkpoints", PRETRAINING.best))
    began = load_weights(run / "checkpoints" / "last-0000")
    assert {n for n in began if n not in pretrained} == {"head.1.weight", "head.1.bias"}
    assert all(torch.equal(began[n], w) for n, w in pretrained.items() if "predict" not in n)

    report = json.loads((run / "report.json").read_text())
    facts, records = report["pretrain"], read_log(run, PRETRAINING.log)
    assert facts["source"] == "the training split"
    assert facts["clips"] == report["clips"]["train"]
    assert facts["steps"] >= 4
    assert facts["loss"] == min(losses) > 0
    assert facts["seconds"] == records[-1]["seconds"] > 0
    assert facts["steps"] == records[-1]["step"]
    assert "pretrained by masked prediction (60% of a clip" in (run / "report.md").read_text()
    assert len(read_log(run)) == report["epochs"] == 1


def test_clips_of_validation_and_test_are_never_used(tmp_path: Path, sounds: Path) -> None:
    """Not even under other names in a folder that is given."""
    extra = tmp_path / "extra"
    shutil.copytree(sounds, extra / "all")
    shutil.copy(next(sounds.rglob("*.wav")), extra / "copy.wav")
    given = (*SETTINGS, f"source={sounds}", f"data={tmp_path / 'data'}")
    tasks = [
        open_task(compose("folder", *given, *more), RECIPES / "folder")
        for more in ((), (f"pretrain.source={extra}",))
    ]
    split, folder = tasks
    assert isinstance(split, ClassificationTask)
    assert isinstance(folder, ClassificationTask)
    assert split.pretraining is not None
    assert folder.pretraining is not None
    data = split.data
    train = {clip.path for clip in data.train.clips}
    assert {clip.path for clip in split.pretraining.clips} == train
    found = {clip.path.removeprefix("all/") for clip in folder.pretraining.clips}
    assert found - {"copy.wav"} == train
    assert folder.pretraining.left_out >= len(data.valid.clips) + len(data.test.clips)
    assert (
        f"without {folder.pretraining.left_out} that are in the validation"
        in folder.pretraining.text
    )
    # A checkpoint knows the folder's content.
    assert split.data_hash == data.prepared.hash != folder.data_hash
    for loader in (split.pretraining._train, split.pretraining._valid):
        assert {clip.label for clip in loader.dataset.clips} == {"unlabelled"}


def test_unusable_files_of_the_folder_are_counted(tmp_path: Path, sounds: Path) -> None:
    extra = tmp_path / "extra"
    extra.mkdir()
    for number, wave in enumerate(np.random.default_rng(0).normal(0, 0.1, (3, 8000))):
        soundfile.write(extra / f"{number}.wav", wave, 16_000)
    (extra / "damaged.wav").write_bytes(b"damaged")
    given = (*SETTINGS, f"source={sounds}", f"data={tmp_path / 'data'}", "skip_bad=true")
    task = open_task(compose("folder", *given, f"pretrain.source={extra}"), RECIPES / "folder")
    assert isinstance(task, ClassificationTask)
    assert task.pretraining is not None
    assert task.pretraining.text.endswith(f"{extra}, without 1 that are unusable")


def test_recordings_that_a_held_out_clip_was_cut_from_are_left_out(tmp_path: Path) -> None:
    """The recordings of a table, and those of other sounds."""
    recordings, noise, rng = tmp_path / "field", tmp_path / "noise", np.random.default_rng(0)
    lines = ["file_name,start,end,label"]
    for number in range(6):
        for file in (recordings / f"site/{number}.wav", noise / f"deep/n{number}.wav"):
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, rng.normal(0, 0.1, 16_000), 8000)
        lines += [f"site/{number}.wav,{at},{at + 0.5},{'ab'[at]}" for at in (0, 1)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    both = tmp_path / "unlabelled"
    shutil.copytree(recordings, both / "field")
    shutil.copytree(noise, both / "noise")
    task = open_task(
        compose(
            "folder", *SETTINGS, f"source={recordings}", f"table={tmp_path / 'labels.csv'}",
            f"background={noise}", f"pretrain.source={both}",
            f"data={tmp_path / 'data'}",
        ),
        RECIPES / "folder",
    )  # fmt: skip
    assert isinstance(task, ClassificationTask)
    assert task.pretraining is not None
    clips = (*task.data.valid.clips, *task.data.test.clips)
    folders = [folder.name for clip in clips for folder in Path(clip.path).parents]
    held = {name for name in folders if name.endswith(".wav")}  # the recordings of the clips
    names = {Path(clip.path).name for clip in task.pretraining.clips}
    assert names == {f"{n}{i}.wav" for n in ("", "n") for i in range(6)} - held
    assert {name[0] == "n" for name in held} == {True, False}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("pretrain=masked", "tokens=waveform"), "pretrain=masked predicts spectrogram frames"),
        (("pretrain.source=x",), r"pretrain\.source=x needs pretrain=masked"),
        (("pretrain=mask",), "unknown pretrain 'mask'; did you mean masked"),
        (
            ("pretrain=masked", "pretrain.mask_ratio=1"),
            r"pretrain\.mask_ratio must lie in \(0, 1\)",
        ),
        (("pretrain=masked", "pretrain.mask_length=0"), r"pretrain\.mask_length must be positive"),
        (("pretrain=masked", "pretrain.step=9"), r"did you mean pretrain\.steps"),
    ],
)
def test_what_cannot_be_is_named(settings: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        compose("folder", "source=unused", *settings)


def test_the_objective_is_checked() -> None:
    with pytest.raises(ConfigError, match="none or masked; got 'contrastive'"):
        PretrainConfig("contrastive")


@pytest.mark.parametrize("both", [False, True])
def test_settings_and_training_clips_reach_every_part(
    both: bool, sounds: Path, tmp_path: Path
) -> None:
    """Nothing is fitted to clips that the model is not trained on."""
    task = open_task(
        compose("folder", *SETTINGS, f"source={sounds}", f"data={tmp_path}", "augment.mixup=0.3",
                "augment.cutmix=0.2", "augment.mixstyle=0.1", f"augment.mixup_power={not both}",
                "augment.mel_masks=1", "augment.mel_mask=2", "tokens=spectrogram",
                "trainer.label_smoothing=0.15", f"validation.train={both}",
                "pretrain.mask_length=120", "pretrain.mask_ratio=0.4", "seed=5",
                "tokens.spectrogram.log_offset=1e-5", "model.pooling=attention",
                "tokens.stem_channels=[2,3,4]", "valid_fraction=0", "validation.fraction=0.3"),
        RECIPES / "folder",
    )  # fmt: skip
    assert isinstance(task, ClassificationTask)
    data, pretraining = task.data, task.pretraining
    splits = {s: {c.path for c in data.clips if c.split == s} for s in ("train", "valid")}
    held_out = hold_out_validation(data.prepared.clips, 0.3, 5, "clip")
    assert splits["valid"] == {clip.path for clip in held_out if clip.split == "valid"}
    used = {clip.path for clip in data.train.clips}
    assert used == splits["train"] | (splits["valid"] if both else set())
    assert {clip.path for clip in pretraining.clips} == used
    assert task.select is not both
    fitted = BandNormaliser.fit("global", [data.cache.frames(path) for path in sorted(used)])
    np.testing.assert_allclose(data.front_end.normaliser.mean, fitted.mean, rtol=1e-5)
    mixing = task.objective.mixing
    assert (mixing.mixup, mixing.cutmix, mixing.mixstyle) == (0.3, 0.2, 0.1)
    nats = None if both else torch.from_numpy(data.front_end.normaliser.std)
    torch.testing.assert_close(mixing.nats, nats)
    assert task.objective.label_smoothing == 0.15
    train, held_out = (loader.dataset for loader in (pretraining._train, pretraining._valid))
    assert {clip.path for clip in train.clips} == used - {clip.path for clip in held_out.clips}
    assert pretraining._objective.mask_length == 3  # tokens of 40 ms
    assert pretraining._objective.mask_ratio == 0.4
    for length, error in (("5", "less than half a token"), ("9000", "hides whole clips")):
        changed = replace(task.settings.pretrain, mask_length=float(length))
        settings = replace(task.settings, pretrain=changed)
        with pytest.raises(ConfigError, match=error):
            Pretraining(settings, data)
    assert data.train.augment.config.mel_masks == 1
    assert train.augment.config.mel_masks == 0
    assert data.train.augment._offset == train.augment._offset == np.float32(1e-5)
    assert data.valid.augment is data.test.augment is held_out.augment is None
    assert task.train.batch_sampler.seed == data.train._seed == 5
    model = task.build_model()
    assert isinstance(model.pooling, AttentionPooling)
    assert [each.out_channels for each in model.stem.convolutions] == [2, 3, 4]
    # What is fitted to clips that were trained on would be too confident.
    sure: Any = SimpleNamespace(probabilities=torch.eye(3), labels=torch.arange(3))
    assert (task._fit_temperature(sure)[0] == 1) is both
