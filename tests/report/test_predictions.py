import csv
import json
import os
from pathlib import Path

import numpy as np

from spaudio.report.predictions import Prediction, render

CLASSES = ("a", "[b]", "c,d")
ONE = Prediction(Path("x.wav"), 1.5, 3, np.array([0.2, 0.5, 0.3], np.float32))


def test_classes_come_by_probability() -> None:
    assert [label for label, _ in ONE.top(CLASSES, 2)] == ["[b]", "c,d"]
    assert len(ONE.top(CLASSES, 9)) == 3


def test_all_formats_say_the_same() -> None:
    table = render("table", [ONE], CLASSES, top=2, window_seconds=0.5)
    assert "[b]" in table
    assert "0.5000" in table
    assert "0.2000" not in table
    assert "longer than 0.5 s" in table
    rows = list(csv.DictReader(
        render("csv", [ONE], CLASSES, top=2, window_seconds=0.5).splitlines()
    ))  # fmt: skip
    assert [(row["class"], row["windows"]) for row in rows] == [("[b]", "3"), ("c,d", "3")]
    bad = [(Path("y.wav"), "silent")]
    content = json.loads(render("json", [ONE], CLASSES, top=1, window_seconds=0.5, bad=bad))
    assert content["predictions"][0]["classes"] == [{"class": "[b]", "probability": 0.5}]
    assert content["bad"] == [{"file": "y.wav", "reason": "silent"}]


def test_any_name_can_be_shown() -> None:
    one = Prediction(Path(os.fsdecode(b"=bad\xff\n\x1b[31m.wav")), 1.0, 1, ONE.probabilities)
    for form in ("table", "csv", "json"):
        text = render(form, [one], ("\x1b", "=a", "c"), top=2, window_seconds=0.5)
        assert text.encode()
        assert "\x1b" not in text or form == "csv"
        assert r"=bad\xff\n" in text.replace("\\\\", "\\")
    rows = list(
        csv.DictReader(render("csv", [one], ("a", "=a", "c"), top=1, window_seconds=1).splitlines())
    )
    assert rows[0]["class"] == "'=a"
    assert rows[0]["file"].startswith("'=bad")


def test_a_long_name_is_not_cut() -> None:
    path = Path("d" * 300) / "x.wav"
    one = Prediction(path, 1.0, 1, ONE.probabilities)
    assert str(path) in render("table", [one], CLASSES, top=1, window_seconds=0.5)
