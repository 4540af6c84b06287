"""``spaudio evaluate``: the scores of the report, of other clips, and of several models."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import spaudio
from spaudio.cli import main
from spaudio.errors import DataError
from spaudio.experiment.inputs import Inputs
from spaudio.inference.ensemble_weights import choose_weights, combine
from spaudio.report.probabilities import (
    ClipProbabilities,
    read_probabilities,
    write_probabilities,
)
from tests import RECIPES
from tests.fixtures.own_sounds import RECORDINGS, WORDS

Evaluate = Callable[..., tuple[str, str]]


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Runs the command; returns both streams."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments: object) -> tuple[str, str]:
        capsys.readouterr()
        main(["evaluate", *map(str, arguments)])
        return capsys.readouterr()

    return run


@pytest.fixture
def other(own_run: Path, tmp_path: Path) -> Path:
    """A run on the same data, whose probabilities are others."""
    folder = tmp_path / "other"
    shutil.copytree(own_run, folder)
    torch.manual_seed(1)
    splits = {
        name: replace(one, values=(one.values.log() + torch.randn(one.values.shape)).softmax(dim=1))
        for name, one in read_probabilities(folder / "probabilities.csv").items()
    }
    write_probabilities(folder / "probabilities.csv", splits)
    return folder


def cells(table: str, row: str) -> list[str]:
    """The cells of the row that begins with a text, without the frame of the table."""
    [line] = [line for line in table.splitlines() if line.strip(" │").startswith(row)]
    return [cell.strip() for cell in line.strip(" │").split("│")][1:]


def test_the_test_split_has_the_scores_of_the_report(own_run: Path, evaluate: Evaluate) -> None:
    out, _ = evaluate(own_run, "--per-class")
    report = json.loads((own_run / "report.json").read_text())
    test, low, high = report["test"], *report["test"]["interval"]
    accuracy, f1, interval, error, clips = cells(out, str(own_run))
    assert error == f"{report['calibration']['after']['ece']:.3f}"
    assert (accuracy, clips) == (f"{test['accuracy']:.3f}", "12")
    assert f1 == f"{test['macro_f1']:.3f}"
    assert interval == f"{low:.3f}-{high:.3f}"
    for name in WORDS.values():
        assert cells(out, name)[1] == f"{test['per_class'][name]['recall']:.3f}"


def test_models_together(own_run: Path, other: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    runs = [read_probabilities(run / "probabilities.csv") for run in (own_run, other)]
    assert len(runs[0]["valid"].clips) == len(runs[0]["test"].clips) == 12
    assert not {*runs[0]["valid"].clips} & {*runs[0]["test"].clips}
    weights, _ = choose_weights(runs, multi_label=False)
    tests = [run["test"] for run in runs]
    mean = combine(torch.stack([one.values for one in tests]), weights, multi_label=False)
    right = [tests[0].classes[i] for i in mean.argmax(dim=1).tolist()]
    accuracy = sum(a == b for a, b in zip(right, tests[0].labels, strict=True)) / 12
    out, err = evaluate(own_run, other, "--output", tmp_path / "both.csv")
    assert cells(out, "together")[0] == f"{accuracy:.3f}"
    assert cells(out, str(own_run))[-1] == f"{weights[0]:.2f}"
    assert "weights were fitted on 12 validation clips" in err
    found = read_probabilities(tmp_path / "both.csv")["test"]
    torch.testing.assert_close(found.values, mean, rtol=1e-4, atol=1e-6)
    assert found.labels == tests[0].labels


def test_the_file_is_written_before_the_reader_of_the_table_may_leave(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*given: object) -> None:
        raise SystemExit(141)

    monkeypatch.setattr("spaudio.report.tables.show_rows", leave)
    with pytest.raises(SystemExit, match="141"):
        main(["evaluate", str(own_run), "--output", str(tmp_path / "p.csv")])
    assert read_probabilities(tmp_path / "p.csv")["test"].clips


def test_folds_are_averaged(own_run: Path, other: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    for name, parts in (("a", (own_run, other)), ("b", (other, own_run))):
        for fold, run in zip(("1", "2"), parts, strict=True):
            shutil.copytree(run, tmp_path / name / f"fold-{fold}")
    printed = [float(cells(evaluate(run)[0], str(run))[0]) for run in (own_run, other)]
    out, _ = evaluate(tmp_path / "a", tmp_path / "b")
    mean = sum(round(12 * accuracy) for accuracy in printed) / 24  # of 12 clips each
    found = cells(out, str(tmp_path / "a"))
    assert found[0].startswith(f"{mean:.3f} ± ")
    assert found[-2] == "24 in 2 folds"
    assert cells(out, "together")[0].endswith("± 0.000")  # the same two models in both folds
    with pytest.raises(SystemExit, match=r"/a has folds 1, 2, .*own no folds; name runs of the"):
        evaluate(tmp_path / "a", own_run)


def test_other_clips(own_run: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    """Their accuracy is that of `predict`; a clip that cannot be used fails the command."""
    clips = tmp_path / "new"
    for digit, word in WORDS.items():
        (clips / word).mkdir(parents=True)
        shutil.copyfile(RECORDINGS / f"{digit}_lucas_0.flac", clips / word / "lucas.flac")
    model = spaudio.load(own_run)
    right = sum(model.predict(clips / w / "lucas.flac").label == w for w in WORDS.values())
    out, _ = evaluate(own_run, "--data", clips)
    assert cells(out, str(own_run))[0] == f"{right / 3:.3f}"
    (clips / "zero" / "bad.wav").write_bytes(b"")
    with pytest.raises(SystemExit, match="1"):
        evaluate(own_run, "--data", clips)
    out, err = evaluate(own_run, own_run, "--data", clips, "--skip-bad")
    assert cells(out, "together")[0] == f"{right / 3:.3f}"
    assert err.count("bad.wav") == 1
    (clips / "zero").rename(clips / "null")
    with pytest.raises(SystemExit, match=r"unknown classes: null; .* are four, seven, zer"):
        evaluate(own_run, "--data", clips)


def test_only_the_test_clips_of_a_divided_folder(
    own_run: Path, other: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    for split, speaker in (("train", "theo"), ("test", "lucas")):
        for digit, word in WORDS.items():
            (tmp_path / "new" / split / word).mkdir(parents=True)
            clip = RECORDINGS / f"{digit}_{speaker}_0.flac"
            shutil.copyfile(clip, tmp_path / "new" / split / word / clip.name)
    new = tmp_path / "new"
    assert cells(evaluate(own_run, "--data", new)[0], str(own_run))[-1] == "3"
    # They may be training clips of a run on this folder alone, or of one that a table has divided.
    settings = (other / "config.yaml").read_text()
    was = f"source: {own_run.parents[2] / 'sounds'}"
    assert was in settings
    for source, table, refused in (
        (new, "t.csv", True), (new / "test", "null", True), (new, "null", False),
        (new / "train", "null", False),
    ):  # fmt: skip
        changed = settings.replace(was, f"source: {source}")
        (other / "config.yaml").write_text(changed.replace("\ntable: null", f"\ntable: {table}"))
        if refused:
            with pytest.raises(SystemExit, match=r"was trained on clips of source=.*new"):
                evaluate(other, "--data", new)
        else:
            assert cells(evaluate(other, "--data", new)[0], str(other))[-1] == "3"


def test_what_would_be_no_test_is_refused(
    own_run: Path, other: Path, evaluate: Evaluate, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(own_run.parents[2])
    with pytest.raises(SystemExit, match="--data sound: no such folder"):
        evaluate(own_run, "--data", "sound")
    with pytest.raises(SystemExit, match=r"was trained on clips of source=.*sounds"):
        evaluate(own_run, "--data", "sounds")
    (tmp_path / "linked").mkdir()
    for word in WORDS.values():  # links into the source
        (tmp_path / "linked" / word).symlink_to(Path("sounds", word).resolve())
    with pytest.raises(SystemExit, match=r"was trained on clips of source=.*sounds"):
        evaluate(own_run, "--data", tmp_path / "linked")
    settings = (other / "config.yaml").read_text()
    was = f"source: {own_run.parents[2] / 'sounds'}"
    (other / "config.yaml").write_text(settings.replace(was, f"source: {tmp_path / 'linked'}"))
    with pytest.raises(SystemExit, match=r"was trained on clips of source=.*linked"):
        evaluate(other, "--data", tmp_path / "linked")  # a source of links
    for source, data, refused in (
        ("all", "all/train", True), ("all/train/zero", "all/train", True),
        ("all", "all/test", False), ("al", "all/train", False),
    ):  # fmt: skip
        shutil.copytree("sounds", tmp_path / data, dirs_exist_ok=True)
        was = f"source: {own_run.parents[2] / 'sounds'}"
        assert was in settings
        (other / "config.yaml").write_text(settings.replace(was, f"source: {tmp_path / source}"))
        if refused:
            with pytest.raises(SystemExit, match=r"was trained on clips of source=.*all"):
                evaluate(other, "--data", tmp_path / data)
        else:
            assert cells(evaluate(other, "--data", tmp_path / data)[0], str(other))
    (other / "config.yaml").write_text(settings.replace(was, "source: nowhere"))
    (tmp_path / "all" / "train" / "zero" / "x.raw").touch()
    _, err = evaluate(other, "--data", tmp_path / "all" / "train")
    assert "was trained on source=nowhere, which is not found from here" in err
    assert "files that were ignored, by their extension: 1 .raw" in err
    (other / "config.yaml").write_text(settings.replace(was, "source: train"))
    shutil.copytree(other, tmp_path / "all" / "runs" / "folder" / "r")  # run in the folder `all`
    with pytest.raises(SystemExit, match=r"was trained on clips of source=train"):
        evaluate(tmp_path / "all" / "runs" / "folder" / "r", "--data", tmp_path / "all" / "train")
    spaudio.load(own_run).save_pretrained(tmp_path / "saved")
    _, err = evaluate(tmp_path / "saved", "--data", "sounds")
    assert "is a saved model, which does not say where its training clips are" in err
    file = other / "probabilities.csv"
    before = read_probabilities(file)["test"]
    moved = replace(before, clips=["other.wav", *before.clips[1:]])
    write_probabilities(file, {"test": moved})
    with pytest.raises(SystemExit, match=r"tested on different clips \(such as .*other.wav"):
        evaluate(own_run, other)
    write_probabilities(file, {"test": replace(before, labels=before.labels[::-1])})
    with pytest.raises(SystemExit, match="labels of the test clips have changed"):
        evaluate(own_run, other)
    write_probabilities(file, {"valid": before})
    with pytest.raises(SystemExit, match="has no test clip; run the recipe again"):
        evaluate(other)
    file.unlink()
    with pytest.raises(SystemExit, match=r"holds no probabilities.csv: it is a saved model, or"):
        evaluate(other)
    (other / "report.json").unlink()
    with pytest.raises(SystemExit, match="finish the run with resume="):
        evaluate(other)
    replace(Inputs.load(other), multi_label=True).save(other)
    with pytest.raises(SystemExit, match="gives a clip several labels, which folders cannot"):
        evaluate(other, "--data", RECIPES)
    with pytest.raises(SystemExit, match="--base x has no effect without --data"):
        evaluate(own_run, "--base", "x")


def test_names_of_any_kind_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    odd = ["=sum(a)", '\'quoted, and "double"', "line\nbreak"]
    values = torch.tensor([[0.25, 0.75, 1e-12], [1.0, 0.0, 0.0]])
    write_probabilities(file, {"valid": ClipProbabilities(odd[:2], odd[1:], odd, values)})
    [(split, found)] = read_probabilities(file).items()
    assert split == "valid"
    assert [*found.clips, *found.labels, *found.classes] == [*odd[:2], *odd[1:], *odd]
    assert torch.equal(found.values, values)
    with file.open(newline="") as text:
        lines = list(csv.reader(text))
    first = lines[1]
    for line in ([], first[:-1], [*first[:-1], "nan"], ["tset", *first[1:]]):
        with file.open("w", newline="") as text:
            csv.writer(text).writerows([lines[0], *([line] if line else [])])
        with pytest.raises(DataError, match=r"p\.csv is damaged .*run the recipe again"):
            read_probabilities(file)
