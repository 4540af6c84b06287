"""Studies: planned, resumed, printed again, and refused."""

import copy
import csv
import json
import shutil
from pathlib import Path

import pytest

import spaudio.experiment.launch
import spaudio.experiment.study
from spaudio.cli import main
from spaudio.errors import ConfigError, SpaudioError
from spaudio.experiment.run_folder import save_run_settings
from spaudio.experiment.settings import AudioSettings, PretrainedConfig
from spaudio.experiment.study_plan import plan_study
from spaudio.experiment.study_results import finished_runs
from spaudio.training.log import read_log
from tests import RECIPES, ROOT
from tests.fixtures.tiny_recipes import TINY
from tests.fixtures.tiny_run import read, rows

STUDY = RECIPES / "text8" / "study.yaml"
pytestmark = pytest.mark.usefixtures("blank_figures")


def _copied_recipe(root: Path) -> Path:
    folder = root / "recipes" / "text8"
    shutil.copytree(RECIPES / "text8", folder)
    (root / "data_prep").symlink_to(ROOT / "data_prep")
    return folder


def test_the_plan_of_a_study_runs_the_first_seed_of_all_settings_first(tmp_path: Path) -> None:
    study = _copied_recipe(tmp_path) / "small.yaml"
    study.write_text(
        "seeds: [0, 1, 2]\noverrides: [preset=tiny]\nsettings:\n"
        "  half: [filter=bank, 'model.filter_layers=[0,1]']\n"
        "  none: [filter=none]\n"
        "  check: {overrides: [filter=none, corpus=sotu], seeds: [0]}\n"
    )
    runs = plan_study(study, ["corpus=books.txt"])
    assert [run.settings.run_id for run in runs] == [
        "small-half-0", "small-none-0", "small-check-0", "small-half-1", "small-none-1",
        "small-half-2", "small-none-2",
    ]  # fmt: skip
    for settings in (run.settings for run in runs):
        wanted = "sotu" if "check" in str(settings.run_id) else "books.txt"
        assert settings.prep_options["corpus"] == wanted
        assert str(settings.seed) == str(settings.run_id)[-1]
    assert runs[0].settings.model.filter_layers == [0, 1]
    planned = plan_study(STUDY, only=["bank"], seeds=[0, 2])
    assert [run.settings.seed for run in planned] == [0, 2]
    assert len(plan_study(STUDY, only=["bank", "bank"], seeds=[0])) == 1
    with pytest.raises(ConfigError, match="unknown setting 'bnak'; did you mean bank"):
        plan_study(STUDY, only=["bnak"])
    with pytest.raises(ConfigError, match="setting none"):
        plan_study(STUDY, ["modle.dim=3"], only=["none"])


def test_what_a_configuration_says_comes_before_data_set_and_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "seeds: [0]\nbaseline: none\noverrides: [preset=debug, source=x, optim.lr=0.1]\n"
        f"data: {{words: {{recipe: {RECIPES / 'folder'}, overrides: [optim.lr=0.2], "
        "seeds: [1, 2]}}\n"
        "settings:\n  none: []\n"
        "  own: {overrides: [trainer.epochs=5, optim.lr=0.3], seeds: [3], baseline: own}\n"
        "  last: {overrides: [optim.lr=0.4], data: {words: [optim.lr=0.5]}, baseline: own}\n"
    )
    runs = plan_study(file, ["trainer.epochs=6", "words:trainer.epochs=7"])
    assert {
        (run.setting, run.settings.seed, run.settings.optim.lr, run.settings.trainer.epochs,
         run.baseline)
        for run in runs
    } == {
        ("none", 1, 0.2, 7, None), ("none", 2, 0.2, 7, None), ("own", 3, 0.3, 5, None),
        ("last", 1, 0.5, 7, "own"), ("last", 2, 0.5, 7, "own"),
    }  # fmt: skip
    said = "trainer.epochs=6 has no effect on configurations that set it themselves: own on words\n"
    assert said in capsys.readouterr().err


def test_a_second_call_resumes_the_broken_and_skips_the_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = _copied_recipe(tmp_path) / "small.yaml"
    study.write_text(
        "seeds: [0]\noverrides: [preset=debug]\n"
        "settings:\n  none: [filter=none]\n  haar: [filter=haar]\n"
    )
    monkeypatch.chdir(tmp_path)
    tiny = TINY["text8"](tmp_path)
    main(["study", str(study), *tiny, "--only", "none"])
    run = tmp_path / "runs" / "text8" / "small-none-0"
    first = read_log(run)
    (run / "report.json").unlink()  # as if it had been stopped before its end
    states = {file: file.read_bytes() for file in run.glob("checkpoints/last-*/trainer.pt")}
    for file in states:
        file.write_bytes(b"damaged")
    with pytest.raises(SystemExit, match="1 of 1 runs failed"):
        main(["study", str(study), *tiny, "--only", "none"])
    assert read_log(run) == first  # what was trained is not thrown away
    for file, content in states.items():
        file.write_bytes(content)
    table = tmp_path / "table.md"
    main(["study", str(study), *tiny, "--output", str(table)])
    assert read_log(run) == first  # nothing was trained again
    assert rows(table)[:2] == ["filter=none", "filter=haar"]
    assert (tmp_path / "table-curves.png").is_file()
    capsys.readouterr()
    main(["study", str(study), *tiny, "--only", "haar"])
    assert "cannot be compared: text8 has no baseline" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="text8 has no baseline"):
        main(["study", str(study), *tiny, "--only", "haar", "--csv", "none.csv"])
    main(["study", str(study), *tiny])
    assert "2 runs, of which 2 are finished" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="eval"):
        main(["study", str(study), *tiny, "eval.windows=4"])


def test_a_study_over_data_sets_is_run_resumed_and_printed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, table, page = (tmp_path / name for name in ("both.yaml", "both.csv", "page.md"))
    file.write_text(
        f"""
        seeds: [0]
        overrides: [preset=debug]
        baseline: none
        data:
          fsdd: {{recipe: {RECIPES}/fsdd, overrides: [split=speaker], folds: [theo, jackson]}}
          words: {{recipe: {RECIPES}/folder, title: Words, seeds: [0, 1]}}
        settings:
          none: [filter=none]
          haar: {{overrides: [filter=haar], control: longer}}
          longer: {{overrides: [filter=none], data: {{words: [trainer.epochs=9]}}}}
        """
    )
    command = ["study", str(file), "fsdd:source=a.zip", "words:source=b", "trainer.batch_size=4"]
    started: list[AudioSettings] = []

    def stand_in(settings: AudioSettings, script: Path, run: Path) -> None:
        if "words-haar-s1" in str(settings.run_id) and len(started) == 8:
            raise ConfigError("no such luck")
        assert script.parent.name == settings.recipe
        started.append(settings)
        report = {
            "recipe": settings.recipe, "seed": settings.seed, "metric": "accuracy",
            "num_params": 10, "filter_params": 2, "trained_params": 4, "step_seconds": 0.1,
            "seconds": {"train": 1.5}, "modulation": {"layer 0": [0.1, 0.3], "layer 1": []},
            "test": {"accuracy": 0.5 + 0.01 * len(started), "macro_f1": 0.5}, "token_seconds": 0.04,
            "floor": {"svm": 0.45}, "clips": {"test": 7}, "valid": {"accuracy": 0.25},
            "valid_held_out": settings.recipe != "fsdd",
        }  # fmt: skip
        if settings.recipe == "fsdd":
            report["pretrain"] = {"seconds": 2.0}
        entry = {"epoch": 1, "step": 3, "seconds": 1.0, "valid_loss": 1.0}
        (run / "log.jsonl").write_text(json.dumps(entry) + "\n")
        (run / "report.json").write_text(json.dumps(report))

    with pytest.raises(SystemExit, match=r"dataset fsdd: source='a\.zip'.* no such file"):
        main(command)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(spaudio.experiment.study, "check_some_data", lambda *given: None)
    monkeypatch.setattr(spaudio.experiment.study, "execute_run", stand_in)
    jobs: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(spaudio.experiment.launch, "_beside", lambda runs, n: jobs.append(n))
        with pytest.raises(SystemExit, match="10 of 10 runs failed"):
            main([*command, "--jobs", "2"])
    assert jobs == [2]
    with pytest.raises(SystemExit, match=r"1 of 10 runs failed: .*words-haar-s1"):
        main(command)
    # The first fold and seed of all datasets and settings comes first.
    assert [f"{one.recipe}/{one.run_id}" for one in started] == [
        "fsdd/both-none-s0/fold-theo", "fsdd/both-haar-s0/fold-theo",
        "folder/both-words-none-s0", "folder/both-words-haar-s0", "folder/both-words-longer-s0",
        "fsdd/both-none-s0/fold-jackson", "fsdd/both-haar-s0/fold-jackson",
        "folder/both-words-none-s1", "folder/both-words-longer-s1",
    ]  # fmt: skip
    options = [one.prep_options | {"seed": one.seed} for one in started]
    assert (options[0]["test_speaker"], options[0]["source"]) == ("theo", "a.zip")
    assert (options[5]["test_speaker"], options[-1]["seed"]) == ("jackson", 1)
    assert [one.trainer.epochs for one in started[-2:]] == [2, 9]
    assert started[-1].trainer.batch_size == 4
    capsys.readouterr()
    main(["study", str(file), "--results", "--csv", str(table), "--output", str(page)])
    done = capsys.readouterr()
    assert "10 runs, of which 9 are finished" in done.err
    assert "validation clips" not in done.err
    assert "neither in the study nor given here: trainer.batch_size=4\n" in done.err
    with table.open(newline="") as lines:
        kept = list(csv.DictReader(lines))
    haar = kept[3]
    assert (haar["data"], haar["setting"], haar["seed"]) == ("Words", "haar", "0")
    assert (haar["baseline"], haar["control"]) == ("none", "longer")
    assert haar["overrides"] == "preset=debug trainer.batch_size=4 filter=haar seed=0"
    assert [one["fold"] for one in kept[:3]] == ["theo", "theo", ""]
    assert (haar["valid"], kept[0]["valid"]) == ("0.25", "nan")
    assert (haar["accuracy"], haar["token_rate"], haar["steps"]) == ("0.54", "25.0", "3")
    assert (haar["floor"], haar["step_seconds"], haar["train_seconds"]) == ("0.45", "0.1", "1.5")
    assert kept[0]["train_seconds"] == "3.5"  # with pretraining
    sizes = [haar[f"{kind}parameters"] for kind in ("", "filter_", "trained_")]
    assert sizes == ["10", "2", "4"]
    assert (haar["modulation_before"], haar["modulation_after"]) == ("0.1", "0.3")
    main(["study", str(table)])
    assert capsys.readouterr().out == done.out
    written, few = file.read_text(), ["--results", "--data", "words", "--seeds", "0"]
    file.write_text(written.replace("[filter=haar]", "[filter=none]"))
    with pytest.raises(SystemExit, match="was run with filter=haar, but haar has filter=none"):
        main(["study", str(file), *few])
    file.write_text(written.replace("=debug", "=debug, augment=sounds"))
    with pytest.raises(SystemExit, match="run with augment=its default, but none has augment=so"):
        main(["study", str(file), *few])
    file.write_text(written)
    # The folder of the prepared data may be another one.
    main(["study", str(file), *few, "data=elsewhere"])
    assert "neither in the study nor given here: trainer.batch_size=4\n" in capsys.readouterr().err
    # An override that only some of the runs had.
    config = tmp_path / "runs" / "folder" / "both-words-haar-s0" / "config.yaml"
    kept_config = config.read_text()
    config.write_text(kept_config.replace("batch_size: 4", "batch_size: 5"))
    with pytest.raises(SystemExit, match=r"batch_size=4, .*batch_size=5, and the study does not"):
        main(["study", str(file), *few])
    config.write_text(kept_config.replace("train: false", "train: true"))
    more = written.replace("[filter=haar]", "[filter=haar, validation.train=true]")
    assert more != written != kept_config != config.read_text()
    file.write_text(more)
    main(["study", str(file), *few])
    said = "Words: haar was trained on the validation clips as well, none was not; give both"
    assert said in capsys.readouterr().err
    file.write_text(written)
    config.write_text(kept_config)
    with pytest.raises(SystemExit, match="exists"):
        main(["study", str(table), "--output", str(page)])
    (tmp_path / "new-effects.png").write_text("precious")
    with pytest.raises(SystemExit, match=r"new-effects\.png exists"):
        main(["study", str(table), "--output", "new.md"])
    for wrong, error in (
        (["--data", "word"], "unknown dataset 'word'"),
        (["--only", "longer", "--data", "fsdd"], "no run has these"),
        (["--seeds", "0,7"], r"the study has no seed 7; it has \[0, 1\]"),
        (["esc50:fold=1"], "unknown dataset 'esc50'"),
        (["fsdd:fold=x"], "setting none, dataset fsdd: fold=x"),
        (["fsdd:folds=all"], "list the folds of dataset fsdd"),
        (["seed=5"], "seed=5: a study sets seed itself; see --seeds"),
        (["fsdd:jobs=3"], "a study sets jobs itself; see --jobs"),
        (["cluster=slurm"], "a study runs on this machine"),
        (["--csv", "one", "--output", "one"], "--output and --csv both name one; name two files"),
    ):
        with pytest.raises(SystemExit, match=error):
            main(["study", str(file), "--results", *wrong])
    damaged = config.with_name("report.json")
    report = read(damaged)
    other = config.parent.with_name("both-words-none-s0") / "report.json"
    for fact, said in (("splits_sha256", "on different data"), ("base", "different pretrained")):
        for path, value in ((damaged, "x"), (other, "y")):
            content = read(path) | {fact: {"sha256": value} if fact == "base" else value}
            path.write_text(json.dumps(content))
        with pytest.raises(SystemExit, match=said):
            main(["study", str(file), *few])
        other.write_text(json.dumps(read(other) | {fact: read(damaged)[fact]}))
    report = read(damaged)
    del report["token_seconds"]
    damaged.write_text(json.dumps(report))
    with pytest.raises(SystemExit, match=r"report\.json is damaged \(KeyError: 'token_seconds'\)"):
        main(["study", str(file), *few])


def test_runs_of_another_encoder_are_not_those_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(
        f"""
        seeds: [0]
        baseline: probe
        overrides: [model=pretrained, model.source=openai/whisper]
        data: {{words: {{recipe: {RECIPES}/folder}}}}
        settings: {{probe: [adapt=probe], bitfit: [adapt=bitfit]}}
        """
    )
    monkeypatch.chdir(tmp_path)
    run = plan_study(file, ["words:source=b"])[0]
    assert isinstance(run.settings, AudioSettings)
    assert isinstance(run.settings.model, PretrainedConfig)
    run.folder.mkdir(parents=True)
    (run.folder / "report.json").write_text("{}")
    made = copy.deepcopy(run.settings)
    for source in ("openai/other", "old/place/of/it"):
        made.model.source = source
        save_run_settings(run.folder, made)
        with pytest.raises(ConfigError, match=f"run with model.source={source}, but probe has"):
            finished_runs([run])
    run.settings.model.source = "new/place/of/it"
    assert finished_runs([run]) == [run]


def test_folds_of_a_study_are_of_the_type_of_the_recipe_s(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "seeds: [0]\nbaseline: x\nsettings: {x: [filter=none]}\n"
        f"data: {{esc50: {{recipe: {RECIPES / 'esc50'}, folds: [a]}}}}\n"
    )
    with pytest.raises(ConfigError, match="esc50: 'a' cannot be fold; folds must be of type int"):
        plan_study(file)


def test_a_study_of_no_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seeds: [0]\n")
    with pytest.raises(SpaudioError, match="needs seeds and settings"):
        plan_study(tmp_path / "a.yaml")
    with pytest.raises(SpaudioError, match="check the path"):
        plan_study(tmp_path / "b.yaml")
    for text, word in (
        ("settings: [a]", "must map names"),
        ("settings: {x: 1}", "must map names"),
        ("settings: {x: {overrides: [], seeds: [a]}}", r"settings.x.seeds\[0\]: Value 'a'"),
        ("settings: {x: {overrides: [], seeds: []}}", "names no seed; list one, or leave it out"),
        ("settings: {x: {seeds: [0]}}", "missing mandatory value: overrides"),
        ("settings: {x: &a [b], y: *a}", "an alias"),
        ("settings: {x: [b], x: [c]}", "it has x twice; leave one out"),
        (
            "settings: {x: [b]}\nbaseline: x\ndata: {a: {recipe: b}, c: {recipe: b, title: a}}",
            "two datasets have the title a; change one",
        ),
        (
            "settings: {x: [b]}\ndata: {a: {recipe: b, fold: 3}}",
            "unknown key 'data.a.fold'; did you mean folds",
        ),
        ("settings: {x: [b]\nbaseline: x", r"a.yaml cannot be read: expected .* in line 3"),
        ("settings: {x: [b], y: [c]}\nbaseline: x", "baseline or control, which need datasets"),
        ("settings: {x: {overrides: [b], control: y}}", "unknown setting 'y'; known: x"),
        ("settings: {x: [b]}\nbaseline: y", "unknown setting 'y'; known: x"),
        ("settings: {x: {overrides: [b], baseline: y}}", "unknown setting 'y'; known: x"),
        ("settings: {x: [{b: 3}]}", "{'b': 3} is not an override; write key=value"),
        ("settings: {x: [b]}\ndata: {a: {recipe: b}}", r"add baseline: SETTING, one of \['x'\]"),
        ("settings: {x: {overrides: [b], data: {d: []}}}", "setting x: unknown dataset 'd'"),
        ("settings: {x: [filter=none, seed=3]}", "setting x: seed=3: a study sets seed itself"),
        (
            "settings: {x: [fold=2]}\nbaseline: x\ndata: {a: {recipe: "
            f"{RECIPES / 'esc50'}, folds: [1]}}}}",
            "fold=2: the study lists the folds",
        ),
        (
            "settings: {x: [b]}\nbaseline: x\ndata: {a: {recipe: b, folds: []}}",
            "dataset a: folds: \\[\\] names no fold; list one",
        ),
        (
            f"settings: {{x: [filter=none]}}\nbaseline: x\ndata: {{a: {{recipe: {RECIPES}/folder, "
            "folds: [0, 1], overrides: [fold_by.key=split_seed]}}",
            "dataset a: folds of split_seed share test clips",
        ),
    ):
        (tmp_path / "a.yaml").write_text(f"seeds: [0]\n{text}\n")
        with pytest.raises(ConfigError, match=word):
            plan_study(tmp_path / "a.yaml")
