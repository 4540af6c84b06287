"""A run is tied to the data that it began with."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from accelerate import Accelerator

import spaudio
from data_prep.folder import prepare as find
from spaudio.audio import prepare
from spaudio.audio.manifest import Clip
from spaudio.cli import main
from spaudio.errors import CheckpointError, DataError
from spaudio.experiment import processes
from spaudio.experiment import run as run_module
from spaudio.experiment.data import _split, _with_duplicates
from spaudio.experiment.load import load_best
from spaudio.experiment.tasks import classification
from spaudio.experiment.tasks.task import Task
from spaudio.inference.predict import Predictor
from spaudio.report.provenance import provenance
from spaudio.training.checkpoint import WEIGHTS
from tests.conftest import Done, RunRecipe, draw_nothing
from tests.fixtures.tiny_audio import make_class_folders
from tests.fixtures.tiny_run import compose


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without its report, as if it had been stopped in its last epoch."""
    folder = tmp_path_factory.mktemp("trained")
    make_class_folders(folder / "sounds", groups=3, clips=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw_nothing(patch)
        spaudio.train("sounds", preset="debug", run_id="a", **{"trainer.epochs": 1})
    (folder / "runs/folder/a/report.json").unlink()
    return folder


@pytest.fixture
def stopped(trained: Path, tmp_path: Path, run_recipe: RunRecipe, blank_figures: None) -> Path:
    """A copy of that run, in the working folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return Path("runs/folder/a")


def rename_class(sounds: Path) -> list[str]:
    (sounds / "hum").rename(sounds / "buzz")
    return ["classes that are gone: hum", "new classes: buzz", "new clips: buzz/deeper/g0_1."]


def add_clip(sounds: Path) -> list[str]:
    wave, rate = soundfile.read(sounds / "hum" / "g0_0.wav")
    soundfile.write(sounds / "hum" / "zzz.wav", wave[::-1], rate)
    return ["new clips: hum/zzz.wav"]


def remove_clip(sounds: Path) -> list[str]:
    (sounds / "hum" / "g0_0.wav").unlink()
    return ["clips that are gone: hum/g0_0.wav"]


def replace_samples(sounds: Path) -> list[str]:
    file = sounds / "hum" / "g0_0.wav"
    status = file.stat()
    wave, rate = soundfile.read(file)
    soundfile.write(file, wave[::-1], rate)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return ["other samples in files of the same names"]


@pytest.mark.parametrize("change", [rename_class, add_clip, remove_clip, replace_samples])
def test_a_run_is_not_resumed_on_other_data(
    tmp_path: Path,
    stopped: Path,
    run_recipe: RunRecipe,
    change: Callable[[Path], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sounds = tmp_path / "sounds"
    shutil.copytree(sounds, tmp_path / "before")
    classes = Predictor(stopped).inputs.classes
    words = change(sounds)
    refused: Done = run_recipe("folder", f"resume={stopped}")
    assert refused.code == 1
    [error] = [line for line in refused.err.splitlines() if line.startswith("error: ")]
    for word in (*words, "have changed since it began", "start a new run"):
        assert word in error
    if change is add_clip:  # a checkpoint knows its data, whatever inputs.json says
        with monkeypatch.context() as patch:
            patch.setattr(classification, "refuse_changed_data", lambda *_: None)
            assert "trained on other data" in run_recipe("folder", f"resume={stopped}").err
    assert Predictor(stopped).inputs.classes == classes == ("hiss", "hum", "sweep")
    if change is not add_clip:
        return
    shutil.rmtree(sounds)
    (tmp_path / "before").rename(sounds)  # restored, it goes on
    done = run_recipe("folder", f"resume={stopped}")
    assert done.code == 0, done.err
    assert json.loads((stopped / "report.json").read_text())["epochs"] == 1


def test_a_report_names_every_commit_that_trained_the_run(
    stopped: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = provenance()
    later = now | {"git_commit": "c0ffee", "versions": now["versions"] | {"torch": "9.0"}}
    monkeypatch.setattr(run_module, "provenance", lambda: later)
    done = run_recipe("folder", f"resume={stopped}")
    assert done.code == 0, done.err
    assert "so far and continues with 9.0; its results may differ" in done.err
    commit = json.loads((stopped / "report.json").read_text())["git_commit"]
    assert commit == ", ".join(filter(None, [now["git_commit"], "c0ffee"]))


def test_what_differs_after_a_resume_is_told(
    stopped: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Task, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    resume, checkpoints = f"resume={stopped}", stopped / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(classification.ClassificationTask, "fit", interrupt)
        said = run_recipe("folder", resume).err
        assert f"stopped; the last checkpoint is kept. Continue with {resume}" in said
        checkpoints.rename(stopped / "hidden")
        assert f"stopped. Continue with {resume}" in run_recipe("folder", resume).err
        (stopped / "hidden").rename(checkpoints)
    # On a machine with another precision, and without the checkpoint of the best epoch.
    [settings] = (file.read_text() for file in checkpoints.glob("best-*/config.yaml"))
    before = yaml.safe_load(settings)["precision"]
    now = {"no": "bf16", "bf16": "no"}[before]
    monkeypatch.setattr(processes, "choose_precision", lambda trainer: now)
    shutil.copytree(checkpoints / "best-0001", checkpoints / "best-0000")
    (checkpoints / "best-0001" / WEIGHTS).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="best-0001.* is damaged"):
        done = run_recipe("folder", resume)
    assert done.code == 0, done.err
    assert f"={before} so far; it continues with trainer.precision={now}, which" in done.err
    report = json.loads((stopped / "report.json").read_text())
    assert (report["precision"], report["best_epoch"]) == (now, 0)


def test_a_run_is_not_resumed_with_other_settings(
    stopped: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stopped / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["optim"]["lr"] = 0.05
    file.write_text(yaml.safe_dump(settings))
    done = run_recipe("folder", f"resume={stopped}")
    assert done.code == 1
    assert "has optim.lr=0.05, but the run was trained with optim.lr=0.001 so far" in done.err
    assert not (stopped / "report.json").exists()
    file.write_text(
        yaml.safe_dump(settings | {"seed": 5, "optim": settings["optim"] | {"lr": 1e-3}})
    )
    assert (
        "has seed=5, but the run was trained with seed=0"
        in run_recipe("folder", f"resume={stopped}").err
    )
    settings["optim"]["lr"], settings["trainer"]["workers"] = 0.001, 1  # workers may change
    file.write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(run_module.torch, "get_num_threads", lambda: 99)
    monkeypatch.setattr(run_module, "processes", lambda: 3)
    done = run_recipe("folder", f"resume={stopped}")
    assert done.code == 0, done.err
    assert "threads so far and continues on 99" in done.err
    assert "was trained in 1 processes so far and continues in 3" in done.err


def test_an_unfinished_run_says_so(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    go_on = f"run its recipe with resume={stopped}"
    main(["predict", str(stopped), "sounds/hum/g0_0.wav"])
    said = capsys.readouterr()
    assert "g0_0.wav" in said.out
    assert f"{stopped} is not finished; its best model so far is used" in said.err
    assert go_on in said.err
    load_best(stopped)
    assert go_on in capsys.readouterr().err
    shutil.rmtree(stopped / "checkpoints")
    for command, *options in (["predict", "."], ["filters"], ["generate"],
                              ["export", "--format", "pt2"]):  # fmt: skip
        with pytest.raises(SystemExit, match=rf"not finished and holds no trained model.*{go_on}"):
            main([command, str(stopped), *options])
    with pytest.raises(CheckpointError, match="not finished"):
        load_best(stopped)


def test_the_same_audio_is_told_of_or_refused(tmp_path: Path, run_recipe: RunRecipe) -> None:
    sounds = make_class_folders(tmp_path / "sounds", groups=3, clips=2)
    shutil.copy(sounds / "hum" / "g0_0.wav", sounds / "hiss" / "copy.wav")
    arguments = ("folder", "preset=debug", "trainer.epochs=1", "source=sounds", "run_id=a")
    refused = run_recipe(*arguments)
    assert refused.code == 1
    assert "under different labels (1 recording): hiss/copy.wav = hum/g0_0.wav" in refused.err
    assert not (tmp_path / "runs").exists()
    allowed = run_recipe(*arguments, "duplicates=allow")
    assert allowed.code == 0, allowed.err
    assert "under different labels (1 recording): hiss/copy.wav = hum/g0_0.wav" in allowed.err


def test_a_validation_split_holds_no_duplicate_of_a_training_clip(tmp_path: Path) -> None:
    make_class_folders(tmp_path / "sounds", groups=3, clips=2)
    for file in [*(tmp_path / "sounds").glob("*/*.wav")]:
        for copy in range(4):
            shutil.copy(file, file.with_stem(f"{file.stem}-{copy}"))
    given = (
        f"source={tmp_path / 'sounds'}", f"data={tmp_path / 'data'}", "test_fraction=0",
        "valid_fraction=0", "validation.fraction=0.3", r"group_regex='(g\d+)_'",
    )  # fmt: skip
    settings = compose("folder", *given)
    prepared = prepare("folder", lambda work: find(work, **settings.prep_options),
                       folder=tmp_path / "data", options={}, progress=False)  # fmt: skip
    assert prepared.duplicates
    clips, [said] = _split(settings, prepared)
    assert "of the validation split are trained on instead, because the same audio" in said
    splits = {clip.path: clip.split for clip in clips}
    assert set(splits.values()) == {"train", "valid"}
    for group in prepared.duplicates:
        assert len({splits[path] for path in group}) == 1
    by_group = compose("folder", *given, "validation.by=group")
    clips, said = _split(by_group, prepared)
    assert said == []  # the copies are in the group of their original
    twice = prepared.duplicates[0]
    apart = [
        replace(clip, group="other") if clip.path == twice[0] else clip for clip in prepared.clips
    ]
    fewer, [said] = _split(by_group, replace(prepared, clips=apart))
    assert said.startswith(f"{len(apart) - len(fewer)} clip")
    assert "left out, because the same audio, or part of it, is in the training split" in said
    assert {clip.split for clip in clips} == {"train", "valid"}
    assert len({(clip.group, clip.split) for clip in clips}) == len({c.group for c in clips}) == 3


def test_a_duplicate_takes_no_group_apart() -> None:
    clips = [
        Clip(path, "a", split, group, 1.0, 8000)
        for path, split, group in (("x", "train", "1"), ("y", "valid", "2"), ("z", "valid", "2"))
    ]
    moved = _with_duplicates(clips, joint := {"x": "x", "y": "x"}, by_group=False)
    assert [clip.split for clip in moved] == ["train", "train", "valid"]
    assert _with_duplicates(clips, joint, by_group=True) == [clips[0], clips[2]]


def test_a_validation_split_shares_no_part_of_a_recording_with_training(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    rng, lines = np.random.default_rng(0), ["file_name,start,end,label,split"]
    for number in range(4):
        soundfile.write(tmp_path / f"sounds/{number}.wav", rng.normal(size=96_000) / 9, 8000)
        for at in range(8):  # of 1 s: the first four overlap with the next one
            start = 0.5 * at if at < 4 else at
            split = "test" if number == 3 else "train"
            lines.append(f"{number}.wav,{start},{start + 1},{'ab'[at % 2]},{split}")
    (tmp_path / "sounds" / "a.csv").write_text("\n".join(lines))
    given = [f"source={tmp_path / 'sounds'}", "table=a.csv", f"data={tmp_path / 'data'}"]
    settings = compose("folder", *given, "validation.fraction=0.3")
    prepared = prepare("folder", lambda work: find(work, **settings.prep_options),
                       folder=tmp_path / "data", options={}, progress=False)  # fmt: skip
    assert len(prepared.overlaps) == 4 * 3
    clips, _ = _split(settings, prepared)
    splits = {clip.path: clip.split for clip in clips}
    assert Counter(splits.values())["valid"] in range(5, 11)
    assert all(splits[one] == splits[two] for one, two in prepared.overlaps)
    assert {clip.group for clip in clips} == {clip.group for clip in prepared.clips}
    alike = replace(prepared, overlaps=(), duplicates=(tuple(splits),))
    with pytest.raises(DataError, match="are duplicates of training clips, or overlap"):
        _split(settings, alike)


def test_a_run_that_another_process_has_finished_is_left_alone(
    stopped: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (stopped / "inputs.json").read_bytes()
    claim = run_module.exclusive

    @contextmanager
    def waits(run: Path, accelerator: Accelerator) -> Iterator[None]:
        with claim(run, accelerator):
            (run / "report.json").write_text("{}")
            yield

    monkeypatch.setattr(run_module, "exclusive", waits)
    assert run_recipe("folder", f"resume={stopped}").code == 0
    assert (stopped / "inputs.json").read_bytes() == before
    assert (stopped / "report.json").read_text() == "{}"
