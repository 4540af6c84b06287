"""The page of a run, as a file: what is in it, and what is not."""

import base64
import hashlib
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from spaudio.audio.manifest import Clip
from spaudio.experiment.compose import parse
from spaudio.report.figures.report_figures import Figures
from spaudio.report.fold_report import join_folds, write_fold_report
from spaudio.report.occlusion import Importance
from spaudio.report.page import run_page
from spaudio.report.page.charts import Line, line_chart
from spaudio.report.page.fold_page import write_fold_page
from spaudio.report.page.judged import Judged, errors_first, labels_to_check, read_judged
from spaudio.report.page.media import Media, _log_mel, loudest
from spaudio.report.page.render import Page, _cells, write_page
from spaudio.report.page.sections import learning_curves, rows_of_one_label
from spaudio.report.run_command import command, shortened
from spaudio.report.run_files import PAGE
from tests.fixtures.tiny_audio import RATE

ODD = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"x" & \u2028')


class Found(HTMLParser):
    """Tags with their attributes, and what scripts and styles hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.held: dict[str, str] = {}
        self._in = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._in = dict(attributes).get("id") or tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.held[self._in] = self.held.get(self._in, "") + data

    @property
    def data(self) -> Any:
        return json.loads(self.held["data"])


def check_policy(found: Found) -> str:
    """Nothing is run, styled or loaded but what the policy names; returns the policy."""
    [policy] = [t["content"] for _, t in found.tags if t.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(found.held[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:", "fold-")), attributes
    return policy


def test_the_page_of_a_run(page_run: Path) -> None:
    html = (page_run / PAGE).read_text(encoding="utf-8")
    found = Found(html)
    assert "file:" not in check_policy(found)
    assert str(page_run.parents[2]) not in html  # nor any folder of this machine
    assert "source=…/sounds" in html
    report = json.loads((page_run / "report.json").read_text())
    assert not list(re.findall("could not be drawn.*", (page_run / "report.md").read_text()))
    data = found.data
    assert len(data["clips"]) == report["clips"]["test"]
    wrong = [clip for clip in data["clips"] if clip["t"][0][0] not in clip["l"]]
    accuracy = 1 - len(wrong) / len(data["clips"])
    assert accuracy == pytest.approx(report["test"]["accuracy"])
    assert len(wrong) > 2
    # Each error has the most similar training clips of its own class and of the predicted one.
    splits = {clip["p"]: clip for clip in data["clips"]}
    for clip in wrong:
        for path, number in zip(clip["n"], (clip["l"][0], clip["t"][0][0]), strict=True):
            assert path.startswith(data["classes"][number] + "/")
            assert path not in splits
            assert data["media"][path][0].startswith("data:audio/mpeg")
    assert [clip["o"] for clip in map(data["clips"].__getitem__, data["suspects"])] == sorted(
        clip["o"] for clip in data["clips"]
    )
    assert set(data["decided"]) == {clip["p"] for clip in data["clips"][: min(12, len(wrong))]}
    for cells in data["decided"].values():
        lefts, rights, lowers, uppers, weights = zip(*cells, strict=True)
        assert (min(lefts), max(rights), min(lowers), max(uppers)) == (0, 1, 0, 1)
        assert (min(weights), max(weights)) == (0, 1)
    inputs = json.loads((page_run / "inputs.json").read_text())
    assert inputs["temperature"] == report["calibration"]["temperature"]
    assert f"{inputs['temperature']:.3f}" in html
    assert html.count('class="kernel"') == 5  # the most used, and one clip with filters off
    kept = read_judged(page_run, "one")
    assert [round(clip.own, 4) for clip in errors_first(kept)] == [c["o"] for c in data["clips"]]


def test_of_equally_probable_classes_the_first_is_predicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in the scores of the report and in predictions.csv."""
    chances = torch.randint(1, 4, (50, 9)) / 4
    clips = [Clip(str(number), "a", "test", "g", 1.0, RATE) for number in range(50)]
    results: Any = SimpleNamespace(
        classes="abcdefghi", multi_label=False, test=SimpleNamespace(clips=clips),
        probabilities=chances, raw=chances,
    )  # fmt: skip
    monkeypatch.setattr(run_page, "_with_nearest", lambda _, found: found)
    found = [clip.predicted for clip in run_page._judge(results)]
    assert found == chances.argmax(dim=1).tolist()


def test_of_several_labels_the_least_probable_one_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The card of a clip names the class of the similar training clip, which is its first label."""
    wanted: dict[int, list[str]] = {}

    def find(model: Any, train: Any, test: Any, asked: Any, multi_label: bool) -> dict[Any, str]:
        wanted.update(asked)
        return {(0, "dog"): "train.wav"}

    monkeypatch.setattr(run_page, "find_nearest", find)
    clips = [Clip("a.wav", "cat,dog", "test", "g", 1.0, RATE)]
    chances = torch.tensor([[0.6, 0.1, 0.7]])
    results: Any = SimpleNamespace(
        classes=("cat", "dog", "owl"), multi_label=True, test=SimpleNamespace(clips=clips),
        train=None, after=None, probabilities=chances, raw=chances,
    )  # fmt: skip
    [found] = run_page._judge(results)
    assert wanted == {0: ["dog", "owl"]}
    assert (found.labels, found.near_label) == ((1, 0), "train.wav")
    assert found.own == pytest.approx(0.1)


def test_the_page_of_all_folds(page_run: Path, tmp_path: Path, figures: list[Figure]) -> None:
    runs = {"a": page_run, "b": page_run}
    settings = {"recipe": "folder", "overrides": ["source=/home/ann/sounds", "folds=all"]}
    folds = join_folds(runs)
    report, calibration = folds.report, folds.reports[0]["calibration"]
    # The second fold has one validation clip more, and speakers that were trained on in it.
    folds.reports[1]["calibration"] = calibration | {"source": "other", "caveat": "of known groups"}
    write_fold_page(
        tmp_path, runs, folds, root=page_run.parents[2] / "sounds", highest=4000,
        settings=settings, description={"Split": ["by fold"]},
        corrected=[("a.wav", "x", "y")],
    )  # fmt: skip
    write_fold_report(tmp_path, folds, Figures(tmp_path))
    assert not re.findall("could not be drawn.*", (tmp_path / "report.md").read_text())
    html = (tmp_path / PAGE).read_text(encoding="utf-8")
    found = Found(html)
    check_policy(found)
    assert sorted(c["f"] for c in found.data["clips"]) == ["a"] * 12 + ["b"] * 12
    assert found.data["earlier"] == [["a.wav", "x", "y"]]
    assert report["test"]["clips"] == 24
    assert "python recipes/folder/run.py &#39;source=…/sounds&#39; folds=all" in html
    assert 'href="fold-a/report.html"' in html
    source = "one per fold, fitted on its validation clips of known groups"
    assert f"Temperature {calibration['temperature']:.3f}, {source}. All" in html
    # Folds with as many validation clips still have a temperature each.
    for one in folds.reports:
        one["calibration"] = calibration | {"temperature": 2.0}
    folds.reports[1]["calibration"]["temperature"] = 3.0
    write_fold_page(tmp_path, runs, folds, root=page_run.parents[2] / "sounds", highest=4000,
                    settings=settings, description={})  # fmt: skip
    again = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "Temperature 2.000 to 3.000, one per fold, fitted on its validation clips" in again
    # Twice the same clips are calibrated as they are once.
    for stage in ("before", "after"):
        assert f"{calibration[stage]['ece']:.4f}" in html
        assert f"{calibration[stage]['loss']:.4f}" in html


def test_the_command_can_be_typed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        r"group_regex='(speaker\d+)'", "filter='bank'", "filter=bank", "run_id='null'",
        "run_id='7'", "seed=7", "preset=null", "model.filter_layers=[0,1]",
        """about.title='"a" b'""", """about.title="it's, it's\"""", "labels=''",
        "cluster_options={a: 1}",
    ]  # fmt: skip
    own = {"recipe": "birds", "prep": "prep", "overrides": []}
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv/bin/python"))
    assert command(own) == "python birds/run.py"  # no folder of the user's machine
    monkeypatch.chdir(tmp_path)
    assert command(own) == ".venv/bin/python birds/run.py"
    general = {"recipe": "folder", "overrides": []}
    assert command(general) == ".venv/bin/spaudio train"  # there is no recipe here
    (tmp_path / "recipes" / "folder").mkdir(parents=True)
    (tmp_path / "recipes" / "folder" / "run.py").touch()
    assert command(general) == ".venv/bin/python recipes/folder/run.py"
    shown = command({"recipe": "folder", "overrides": given})
    assert "filter=bank filter=bank" in shown
    again = [parse(one) for one in shlex.split(shown)[2:]]
    assert [one.key_or_group for one in again] == [one.partition("=")[0] for one in given]
    for one, same in zip(again, map(parse, given), strict=True):
        assert (one.value(), type(one.value())) == (same.value(), type(same.value()))
    settings = {"recipe": "folder", "overrides": ["source='/home/ann/my sounds'"]}
    assert command(settings).endswith(" 'source=…/my sounds'")


def odd_page(folder: Path) -> tuple[Page, Media]:
    clips = []
    for number, name in enumerate(ODD):
        path = f"{number} #%?\u202e.wav"
        soundfile.write(folder / path, np.sin(np.arange(RATE) / 9), RATE)
        top = tuple(((number + i) % 3, chance) for i, chance in enumerate((0.7, 0.2, 0.1)))
        clips.append(Judged(path, name, 1.0, ((number + number // 2) % 3,), top, 0.7, 0.7))
    page = Page(
        title="<b>", run=ODD[0], metric="accuracy", score="0.5", detail="", bars=[], description={},
        warnings=[ODD[1]], classes=ODD, multi_label=False, clips=clips, columns=["Precision"],
        rows=rows_of_one_label(ODD, clips), calibration=[], reliability=Markup(""), curves=[],
        settings={"a": {"b": ODD[0]}}, command=ODD[0],
    )  # fmt: skip
    (folder / "run").mkdir()
    return page, Media(folder, folder / "run", 4000)


def test_names_are_no_markup(tmp_path: Path) -> None:
    page, media = odd_page(tmp_path)
    write_page(tmp_path / "run", page, media)
    found = Found((tmp_path / "run" / PAGE).read_text(encoding="utf-8"))
    check_policy(found)
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not [1 for tag, attributes in found.tags if tag == "img" or "onerror" in attributes]
    assert found.data["classes"] == [*ODD[:2], r'"x" & \u2028']
    assert found.data["raw"] == list(ODD)
    assert {clip["r"] for clip in found.data["clips"]} == {clip.path for clip in page.clips}


def test_what_depends_on_the_recipe_and_its_classes(tmp_path: Path) -> None:
    page, media = odd_page(tmp_path)
    for classes, settings, row, use in (
        (page.classes, {}, "all classes", "does not read the saved file"),
        (("a", "_none_", "b"), {"labels": None}, "all classes but _none_", "labels=corrections"),
    ):
        rows = rows_of_one_label(classes, page.clips)
        shown = replace(page, classes=classes, rows=rows, settings=settings)
        write_page(tmp_path / "run", shown, media)
        html = (tmp_path / "run" / PAGE).read_text(encoding="utf-8")
        found = Found(html)
        assert f'<th scope="row">{row}</th>' in html
        left_out = [a["data-class"] for _, a in found.tags if "data-nothing" in a]
        assert left_out == [str(i) for i, name in enumerate(classes) if name == "_none_"]
        assert use in found.data["use"]


def test_what_a_page_leaves_out_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, media = odd_page(tmp_path)
    wrong = sum(not clip.is_right for clip in page.clips)
    assert 0 < wrong < len(page.clips)
    monkeypatch.setattr("spaudio.report.page.render.MOST_CLIPS", 0)
    write_page(tmp_path / "run", page, media)
    html = (tmp_path / "run" / PAGE).read_text(encoding="utf-8")
    assert Found(html).data["left_out"] == [wrong, len(page.clips) - wrong]
    assert f"Errors <b>{wrong}</b>" in html


def test_what_the_budget_does_not_hold_is_linked(tmp_path: Path) -> None:
    page, media = odd_page(tmp_path)
    media.budget = 1
    write_page(tmp_path / "run", page, media)
    found = Found((tmp_path / "run" / PAGE).read_text(encoding="utf-8"))
    assert "media-src data: file: 'self'" in check_policy(found)
    for address, picture, *_ in found.data["media"].values():
        assert not picture
        assert (tmp_path / "run" / unquote(address)).is_file()


def test_long_clips_are_shown_where_they_are_loudest(tmp_path: Path) -> None:
    wave = 0.001 * np.random.default_rng(0).standard_normal(8 * RATE).astype(np.float32)
    wave[6 * RATE : 6 * RATE + 800] = 0.5 * np.sin(np.arange(800) * 0.8)  # 0.1 s
    assert loudest(wave, 2 * RATE) in range(4 * RATE, 6 * RATE + 1)
    assert loudest(wave, 9 * RATE) == 0
    assert loudest(np.array([0, 0, 1, 1, 0], np.float32), 2) == 2
    soundfile.write(tmp_path / "long.wav", wave, RATE)
    media = Media(tmp_path, tmp_path, 4000)
    media.embed(["long.wav"])
    [medium] = media.found.values()
    assert medium.seconds == pytest.approx(5)
    assert medium.start <= 6 <= medium.start + 5
    assert medium.peak == pytest.approx(-6.02, abs=0.1)
    sound = base64.b64decode(medium.sound.partition(",")[2])
    (tmp_path / "long.mp3").write_bytes(sound)
    decoded, rate = soundfile.read(tmp_path / "long.mp3")
    assert (rate, decoded.ndim, len(decoded)) == (16_000, 1, 80_000)
    loud = np.flatnonzero(np.abs(decoded) > 0.3) / rate + medium.start
    assert (loud[0], loud[-1]) == pytest.approx((6, 6.1), abs=0.01)  # where the playhead shows it


@pytest.mark.parametrize("top", [250.0, 500.0, 1000.0, 8000.0])
def test_no_band_of_a_spectrogram_is_empty(top: float) -> None:
    """However low the sample rate: white noise has about the same level in all bands."""
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    level = _log_mel(0.01, top)(torch.from_numpy(noise)).mean(dim=0)
    assert level.max() - level.min() < np.log(4)


def test_clips_are_ranked() -> None:
    def clip(name: str, label: int, top: tuple[tuple[int, float], ...], own: float) -> Judged:
        return Judged(name, name, 1.0, (label,), top, own, 0.5)

    clips = [
        clip("sure", 0, ((0, 0.9),), 0.9), clip("unsure", 0, ((0, 0.4),), 0.4),
        clip("wrong", 1, ((0, 0.5),), 0.3), clip("very wrong", 1, ((0, 0.8),), 0.1),
    ]  # fmt: skip
    assert [c.path for c in errors_first(clips)] == ["very wrong", "wrong", "unsure", "sure"]
    suspects = [c.path for c in labels_to_check(clips, multi_label=False)]
    assert suspects == ["very wrong", "wrong", "unsure", "sure"]
    assert not labels_to_check(clips, multi_label=True)


def test_of_folders_the_last_part_is_shown() -> None:
    assert shortened("/home/ann/sounds") == "…/sounds"
    assert shortened("~/sounds") == "…/sounds"
    assert shortened(r"C:\Users\ann\sounds") == "…/sounds"
    assert shortened("recipes/fsdd/recordings") == "recipes/fsdd/recordings"
    assert shortened("A: birds of the site") == "A: birds of the site"  # no drive
    assert shortened(0.5) == "0.5"
    assert shortened(["/home/ann/a", {"b": "/home/ann/b", "c_regex": "/c", "d": 1}]) == (
        "['…/a', {'b': '…/b', 'c_regex': '/c', 'd': 1}]"
    )
    kept = [r"group_regex='/(\w+)_'", "model.filter_layers=[0]", "urls=[https://a.org/b]"]
    folders = ["source=/home/ann/sounds", "more=[/home/ann/a,'/home/ann/my b',{c:~/c}]"]
    settings = {"overrides": kept + folders, "recipe": "x"}
    words = shlex.split(command(settings))
    assert words[2:] == [*kept, "source=…/sounds", "more=[…/a,'…/my b',{c:…/c}]"]


def test_curves_of_a_probe_are_drawn_over_its_penalties() -> None:
    log = [
        {"epoch": i, "penalty": 10.0**-i, "train_loss": 1.0 / i, "valid_loss": 1.0}
        for i in (1, 2, 3)
    ]
    (drawn,) = learning_curves({"": log}, "accuracy")
    assert "log10 of the penalty" in drawn
    assert "augmented" not in drawn
    (drawn,) = learning_curves({f"fold-{i}": log for i in range(8)}, "accuracy")
    assert drawn.count("<li>") == 8  # names that do not fit beside one another
    assert drawn.count("dashed") == 4  # lines and swatches of two more than there are colors


def test_a_chart_of_a_point_has_axes() -> None:
    drawing = line_chart([Line("<a>", [(1, 0.5)], notes=["<b>"])], title="t", x="x", y="y")
    assert "&lt;a&gt;" in drawing
    assert 'class="dot c0" cx="252.0"' in drawing  # in the middle of the frame


def test_cells_lie_at_their_seconds_if_segments_leave_out_the_end() -> None:
    one = Importance(np.ones((1, 2)), np.array([0, 0.15, 0.3]), np.array([0.0, 4000.0]), [], [])
    assert [cell[:2] for cell in _cells(one, 0.4, 4000)] == [[0, 0.375], [0.375, 0.75]]
