"""Names are shown as they are, wherever they go: no formula, markup or control sequence."""

import csv
import errno
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from spaudio.io.csv_files import for_csv
from spaudio.io.escape import for_figure, for_markdown, printable
from spaudio.report.classification_report import write_report
from spaudio.report.figures import drawing
from spaudio.report.figures.drawing import save_figure
from spaudio.report.figures.report_figures import Figures
from spaudio.report.figures.results_plot import (
    BARS,
    plot_confusion,
    plot_folds,
    plot_per_class,
)
from spaudio.report.probabilities import ClipProbabilities, read_probabilities
from spaudio.report.scores import score
from spaudio.report.tables import show_rows

ODD = ("$a$", "a|b\n<img src=x>", "=1+1", "\x1b[31m", "語", "[/red]", "\\$", "_x_", "x" * 200,
       "a\rb")  # fmt: skip


def test_text_is_escaped_for_where_it_goes() -> None:
    assert printable(os.fsdecode(b"bad\xff\n\x1b[31m\xc3\xbc")) == r"bad\xff\n\x1b[31mü"
    assert printable("\u202egnp.exe\ud800") == r"\u202egnp.exe\ud800"
    assert for_figure("$a$") == r"\$a\$"
    assert len(for_figure("x" * 300)) == 41
    assert for_markdown("a|b\n<i>*_x_ [t](u) k_s") == r"a\|b\\n\<i\>\*\_x\_ [t\](u) k_s"
    assert [for_csv(cell) for cell in ("=1", "+1", "-1", "@a", "a=")] == [
        "'=1", "'+1", "'-1", "'@a", "a=",
    ]  # fmt: skip


def test_a_report_of_any_class_names_is_whole(tmp_path: Path) -> None:
    chances = torch.eye(len(ODD))
    test = ClipProbabilities([f"={i}.wav" for i in range(len(ODD))], ODD, ODD, chances)
    scores = score(chances, torch.arange(len(ODD)), ODD)
    report: dict[str, Any] = {
        "metric": scores.metric, "test": scores.values,
        "floor": {"svm": 0.5, "majority": 0.1}, "recipe": "toy",
        "tokens": {"front_end": "x", "normalise": "y"},
        "filter": {"name": "none"}, "seed": 0, "best_epoch": 1, "epochs": 1,
        "valid": {"accuracy": 0.5}, "trained_on_valid": False, "valid_held_out": True,
        "balance": {"text": ""}, "split": [], "notes": [],
        "calibration": {"temperature": 1.0, "before": {"ece": 0}, "after": {"ece": 0},
                        "source": "x"},
        "clips": dict.fromkeys(("train", "valid", "test"), 9), "num_params": 1, "filters": [],
        "filter_params": 0, "seconds": {}, "step_seconds": 0.1, "git_commit": None,
    }  # fmt: skip
    log = [{"epoch": 1, "train_loss": 1.0, "valid_loss": 1.0, "valid_accuracy": 0.5}]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_report(
            tmp_path, report, figures=Figures(tmp_path), scores=scores, log=log,
            recorded={"test": test},
        )  # fmt: skip
    assert not caught
    assert imread(tmp_path / "confusion.png").std() > 0
    text = (tmp_path / "report.md").read_text()
    assert r"| a\|b\\n\<img src=x\> | 1.000 |" in text
    assert text.replace("\n", "").isprintable()
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["true"] for row in rows] == [for_csv(name) for name in ODD]
    assert read_probabilities(tmp_path / "probabilities.csv")["test"].classes == list(ODD)
    assert set(json.loads((tmp_path / "report.json").read_text())["test"]["per_class"]) == set(ODD)


def test_a_failing_figure_is_one_line_of_the_report(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise ValueError("no | way\nat all")

    figures = Figures(tmp_path)
    (tmp_path / "mask.png").write_bytes(b"of an earlier report")
    with pytest.warns(UserWarning, match="mask.png could not be drawn"):
        figures.draw("mask", fail)
    figures.draw("a b", lambda path: path.write_bytes(b"x"))
    assert figures.links("a b", "mask") == [
        "![a b](a%20b.png)",
        r"- mask.png could not be drawn (ValueError: no \| way)",
    ]

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):  # a run that is not finished can be resumed
        figures.draw("page", full)


def test_characters_that_the_font_lacks_are_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "_told", set())
    for text, said in (
        ("語言模型", "語, 言, 模, 型"),
        ("語言", ""),
        ("語 くしゃみ🐓", "く, し, ゃ, み, 🐓"),
    ):
        figure = Figure()
        figure.text(0, 0, text)
        save_figure(figure, tmp_path / "x.png")
        err = capsys.readouterr().err
        assert err.count("\n") == bool(said)
        assert (f"lacks characters of some names ({said}), which" in err) == bool(said)
        assert ("matplotlibrc" in err) == bool(said)


def test_long_names_leave_a_place_for_the_confusion_matrix(tmp_path: Path) -> None:
    with warnings.catch_warnings():  # of matplotlib, if the labels leave none
        warnings.simplefilter("error")
        plot_confusion(torch.eye(2, dtype=torch.long), ["a" * 41, "b" * 41], tmp_path / "x.png")
        folds = [{"fold": str(i) * 41, "accuracy": 0.5, "svm": 0.4} for i in range(5)]
        plot_folds(folds, tmp_path / "x.png")


def test_the_confusion_matrix_is_bounded(tmp_path: Path, figures: list[Figure]) -> None:
    names = [f"class {i}" for i in range(1600)]
    confusion = 10 * torch.eye(1600, dtype=torch.long)
    confusion[3, 7], confusion[1500, 2] = 5, 8
    plot_confusion(confusion, names, tmp_path / "x.png")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "class 3 as class 7", "class 1500 as class 2",
    ]  # fmt: skip
    plot_confusion(torch.eye(1600, dtype=torch.long), names, tmp_path / "x.png")  # none confused
    plot_confusion(confusion[:60, :60], names[:60], tmp_path / "x.png")
    assert max(figures[-1].get_size_inches()) < 30
    scores: dict[str, dict[str, float | None]] = {n: {"ap": i / 1600} for i, n in enumerate(names)}
    plot_per_class(scores, tmp_path / "x.png")
    assert max(figures[-1].get_size_inches()) < 40
    assert len(figures[-1].axes[0].patches) == BARS


def test_tables_of_the_terminal_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"setting": "a[red]\x1b[31m[/x]"}], "Title")
    assert r"a[red]\x1b[31m[/x]" in capsys.readouterr().out
