import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from spaudio.inference.predictions import Prediction, render
from spaudio.io.csv_files import from_csv

CLASSES = ("a", "[b]", "c,d")
ONE = Prediction(Path("x.wav"), 1.5, 3, np.array([0.2, 0.5, 0.3], np.float32), CLASSES)


def test_classes_come_by_probability() -> None:
    assert [label for label, _ in ONE.top(2)] == ["[b]", "c,d"]
    assert len(ONE.top(9)) == 3


def test_all_formats_say_the_same() -> None:
    table = render("table", [ONE], top=2, window_seconds=0.5)
    assert "[b]" in table
    assert "0.5000" in table
    assert "0.2000" not in table
    assert "longer than 0.5 s" in table
    rows = list(csv.DictReader(
        render("csv", [ONE], top=2, window_seconds=0.5).splitlines()
    ))  # fmt: skip
    assert [(row["class"], row["windows"]) for row in rows] == [("[b]", "3"), ("c,d", "3")]
    bad = [(Path("y.wav"), "silent")]
    content = json.loads(render("json", [ONE], top=1, window_seconds=0.5, bad=bad))
    assert content["predictions"][0]["classes"] == [{"class": "[b]", "probability": 0.5}]
    assert content["bad"] == [{"file": "y.wav", "reason": "silent"}]


def test_any_name_can_be_shown() -> None:
    one = Prediction(
        Path(os.fsdecode(b"=bad\xff\n\x1b[31m.wav")), 1.0, 1, ONE.probabilities, ("\x1b", "=a", "c")
    )
    for form in ("table", "csv", "json"):
        text = render(form, [one], top=2, window_seconds=0.5)
        assert text.encode()
        assert "\x1b" not in text or form == "csv"
        bad = r"=bad\udcff\n" if form == "json" else r"=bad\xff\n"
        assert bad in text
    rows = list(csv.DictReader(render("csv", [one], top=1, window_seconds=1).splitlines()))
    assert rows[0]["class"] == "'=a"
    assert rows[0]["file"].startswith("'=bad")


def test_the_frame_of_a_table_is_in_the_encoding_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert render("table", [ONE], top=2, window_seconds=0.5).isascii()


def test_a_class_with_any_character_is_one_cell() -> None:
    odd = ("a\rb", 'c"\n', "\t,")
    one = Prediction(Path("x.wav"), 1.0, 1, ONE.probabilities, odd)
    text = render("csv", [one], top=3, window_seconds=1, unsure=0.1)
    rows = csv.DictReader(io.StringIO(text, newline=""))
    found = [(row["decision"], from_csv(row["class"])) for row in rows]
    assert found == [(odd[1], name) for name in (odd[1], odd[2], odd[0])]


def test_the_path_of_a_file_is_kept() -> None:
    """Names with unusual spaces or joined characters still name the file."""
    path = Path("at 9.00\u202fAM \U0001f468\u200d\U0001f469.wav")
    one = Prediction(path, 1.0, 1, ONE.probabilities, CLASSES)
    given = {"top": 1, "window_seconds": 0.5, "bad": [(path, "silent")]}
    [row] = csv.DictReader(render("csv", [one], **given).splitlines())  # type: ignore[arg-type]
    content = json.loads(render("json", [one], **given))  # type: ignore[arg-type]
    found = [row, content["predictions"][0], content["bad"][0]]
    assert [one["file"] for one in found] == [str(path)] * 3


def test_a_long_name_is_not_cut() -> None:
    path = Path("d" * 300) / "x.wav"
    one = Prediction(path, 1.0, 1, ONE.probabilities, CLASSES)
    assert str(path) in render("table", [one], top=1, window_seconds=0.5)


def test_below_the_limit_the_decision_is_unsure() -> None:
    for limit, said in ((0.5, "[b]"), (0.51, "unsure")):
        given = {"top": 1, "window_seconds": 0.5, "unsure": limit}
        [row] = csv.DictReader(render("csv", [ONE], **given).splitlines())  # type: ignore[arg-type]
        assert (row["decision"], row["class"]) == (said, "[b]")
        assert json.loads(render("json", [ONE], **given))["predictions"][0]["decision"] == said  # type: ignore[arg-type]
        assert said in render("table", [ONE], **given)  # type: ignore[arg-type]
