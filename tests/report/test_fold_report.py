"""The report over folds, from the files of two folds of unequal size."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spaudio.errors import DataError
from spaudio.report import fold_report
from spaudio.report.figures.report_figures import Figures
from spaudio.report.fold_report import join_folds, write_fold_report
from spaudio.report.records import read_records


def make_fold(folder: Path, pairs: str, number: int, **facts: Any) -> Path:
    """A finished run with one letter for the true and one for the predicted class of each clip.

    All of its facts are small multiples of ``number``.
    """
    folder.mkdir()
    clips = [(true, predicted) for true, predicted in pairs.split()]
    accuracy = sum(true == predicted for true, predicted in clips) / len(clips)
    report = {
        **dict.fromkeys(fold_report.SHARED), "recipe": "toy", "metric": "accuracy", "seed": 7,
        "git_commit": "c0ffee",
        "filter": {"name": "none"}, "filters": [], "num_params": 1000, "filter_params": 0,
        "trained_on_valid": False, "best_epoch": number, "step_seconds": 0.1 * number,
        "test": {"accuracy": accuracy, "macro_f1": 0.2 * number, "per_class": {"x": 0, "y": 0}},
        "floor": {"svm": 0.3 * number, "majority": 0.1 * number, "trained_on": 9_998 + number},
        "valid": {"accuracy": 0.15 * number},
        "clips": {"train": 40 * number, "valid": 20 * number, "test": len(clips)},
        "seconds": {"prepare": 1.0 * number, "train": 10.0 * number, "test": 0.5 * number},
        "aligned": {"accuracy": 0.25 * number}, **facts,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "true", "predicted"])
        writer.writerows([f"{i}.wav", *pair] for i, pair in enumerate(clips))
    return folder


def reported(folder: Path, runs: dict[str, Path]) -> dict[str, Any]:
    """The content of ``report.json``."""
    write_fold_report(folder, join_folds(runs), Figures(folder))
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_confusion", "plot_folds"):
        monkeypatch.setattr(fold_report, name, lambda *given: None)


def test_means_are_over_folds_sums_over_runs_and_the_matrix_over_clips(tmp_path: Path) -> None:
    cost = {"adapt": "lora", "base": {"source": "b", "sha256": "0" * 12}}
    runs = {
        name: make_fold(
            tmp_path / f"fold-{name}", pairs, number, **cost, trained_params=9,
            best_seconds=3.0 * number, peak_memory_bytes=(3 - number) << 20, precision="bf16",
        )
        for name, pairs, number in (("a", "xx xx xx xy xy xy yy yy yx yx", 1), ("b", "xx xy", 2))
    }  # fmt: skip
    report = reported(tmp_path, runs)
    spread = 0.5**0.5  # of two numbers that are one apart
    assert report["test"] == {
        "accuracy": pytest.approx(0.5), "std": pytest.approx(0), "clips": 12,
        "macro_f1": pytest.approx(0.3), "pooled_accuracy": pytest.approx(6 / 12),
    }  # fmt: skip
    assert report["floor"] == pytest.approx(
        {"svm": 0.45, "svm_std": 0.3 * spread, "majority": 0.15, "majority_std": 0.1 * spread}
        | {"trained_on": 10_000}
    )
    assert report["confusion"] == [[4, 4], [2, 2]]
    assert report["seconds"] == {"prepare": 3, "train": 30, "test": 1.5}
    assert report["step_seconds"] == pytest.approx(0.15)
    assert report["aligned"] == {"accuracy": pytest.approx(0.375)}
    assert (report["best_seconds"], report["peak_memory_bytes"]) == (4.5, 2 << 20)
    assert report["folds"][1] == {
        "fold": "b", "accuracy": 0.5, "macro_f1": 0.4, "svm": 0.6, "majority": 0.2,
        "valid_accuracy": 0.3, "best_epoch": 2, "clips": {"train": 80, "valid": 40, "test": 2},
    }  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert "RBF-SVM; trained on 10,000 clips)" in text
    assert "one training step: 150 ms in bfloat16" in text
    assert "The transformer is above the classical floor, in 1 of 2 folds." in text
    row = "| [b](fold-b/report.md) | 0.5000 | 0.6000 | 0.4000 | 0.3000 | 2 | 80, 40, 2 |"
    assert row in text


def test_pretraining_balance_and_notes_of_the_folds_are_kept(tmp_path: Path) -> None:
    facts = {
        "source": "sounds", "sha256": "5" * 64, "mask_ratio": 0.6, "mask_tokens": 5, "clips": 6,
    }  # fmt: skip
    runs = {
        name: make_fold(
            tmp_path / f"fold-{name}", "xx xy", number, notes=notes,
            pretrain=facts | {"seconds": 2.0 * number},
            **({"balance": {"text": "classes are weighted"}} if number == 2 else {}),
        )
        for name, number, notes in (("a", 1, ["same audio"]), ("b", 2, ["same audio", "no x"]))
    }  # fmt: skip
    report = reported(tmp_path, runs)
    assert report["pretrain"]["seconds"] == 6
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "- same audio" in lines
    assert "- fold b: no x" in lines
    assert "- fold b: classes are weighted" in lines
    [said] = [line for line in lines if "pretrained by masked prediction" in line]
    assert said.endswith("on sounds, for each fold, without labels: 6.0 s in all")
    (tmp_path / "config.yaml").write_text("seed: 7\nfilter: {name: none}")
    (tmp_path / "log.jsonl").write_text("")
    (record,) = read_records([tmp_path])
    assert (record.facts["pretrain.seconds"], record.facts["pretrain.sha256"]) == (6, "5" * 64)
    other = json.loads((runs["b"] / "report.json").read_text())
    other["pretrain"]["sha256"] = "6" * 64
    (runs["b"] / "report.json").write_text(json.dumps(other))
    with pytest.raises(
        DataError, match=r"data of pretrain\.source have changed between .* a and b"
    ):
        join_folds(runs)


def test_the_pooled_accuracy_counts_clips_and_the_mean_counts_folds(tmp_path: Path) -> None:
    runs = {
        name: make_fold(tmp_path / f"fold-{name}", pairs, 3)
        for name, pairs in (("a", "xx xx xx xx xx xy"), ("b", "xy yy"))
    }
    report = reported(tmp_path, runs)
    assert report["test"]["pooled_accuracy"] == pytest.approx(6 / 8)
    assert report["test"]["accuracy"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert report["test"]["std"] == pytest.approx((5 / 6 - 1 / 2) / 2**0.5)
    text = (tmp_path / "report.md").read_text()
    assert "does not beat the classical floor** (above it in 0 of 2 folds)." in text
    del runs["b"]
    content = json.loads((runs["a"] / "report.json").read_text()) | {"git_commit": None}
    (runs["a"] / "report.json").write_text(json.dumps(content))
    alone = reported(tmp_path, runs)
    assert (alone["test"]["std"], alone["git_commit"]) == (None, None)


def test_a_class_that_a_spreadsheet_would_take_for_a_formula_is_counted(tmp_path: Path) -> None:
    scores = {"accuracy": 2 / 3, "macro_f1": 0.2, "per_class": {"=": 0, "x": 0}}
    run = make_fold(tmp_path / "fold-a", "== =x xx", 1, test=scores)
    file = run / "predictions.csv"
    file.write_text(file.read_text().replace("=", "'="))  # as a run writes it
    report = reported(tmp_path, {"a": run})
    assert report["confusion"] == [[1, 1], [0, 1]]
    assert report["test"]["pooled_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("report.json", lambda content: content[:-9], "JSONDecodeError"),
        ("report.json", lambda content: b"[]", "TypeError"),
        ("report.json", lambda content: content.replace(b'"test"', b'"toast"'), "KeyError: 'test'"),
        ("predictions.csv", lambda content: b"", "3 complete lines, and has 0"),
        ("predictions.csv", lambda content: b"\xff\xfe\x00", "UnicodeDecodeError"),
        ("predictions.csv", lambda content: content[:-4], "3 complete lines, and has 3"),
        ("predictions.csv", lambda content: content[: content.index(b"2.wav")], "and has 2"),
        ("predictions.csv", lambda content: content.replace(b"true", b"tru"), "KeyError: 'true'"),
    ],
)
def test_a_damaged_file_of_a_fold_is_named(
    tmp_path: Path, file: str, damage: Callable[[bytes], bytes], said: str
) -> None:
    runs = {name: make_fold(tmp_path / f"fold-{name}", "xx xy yy", 1) for name in "ab"}
    damaged = runs["b"] / file
    damaged.write_bytes(damage(damaged.read_bytes()))
    with pytest.raises(DataError, match=rf"fold-b/{file} is damaged .*{said}.* resume= to train"):
        join_folds(runs)
