"""Fills the page's template: one HTML file with its style and script inside."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from spaudio.audio.manifest import is_nothing
from spaudio.io.atomic import write_atomic
from spaudio.io.escape import printable
from spaudio.io.plain import flatten
from spaudio.report.occlusion import Importance
from spaudio.report.page.filter_section import FilterSection
from spaudio.report.page.judged import Judged, errors_first, labels_to_check
from spaudio.report.page.media import Media, Medium, shown_frequencies
from spaudio.report.run_command import shortened
from spaudio.report.run_files import PAGE
from spaudio.tokens.scales import hz_to_mel

CELLS = 40  # most classes of a confusion matrix; with more, the most confused pairs are shown
PAIRS = 60  # instead of a matrix
PAIRS_BESIDE = 12  # beside a matrix
MOST_CLIPS = 20_000  # in the list; errors come first
_RIGHT = 5  # correctly predicted clips of each class that are embedded


@dataclass(frozen=True)
class Bar:
    """A score beside others: its name, value in [0, 1], and color as in `charts.Line`."""

    name: str
    value: float
    color: int


@dataclass(frozen=True)
class Row:
    """A class in the table of classes.

    Args:
        name: Name of the class.
        clips: Number of its clips in the test split.
        scores: Values of the columns, as text.
        above: For each threshold, how many predictions of the class reach it, and how many of
            these are right.
    """

    name: str
    clips: int
    scores: Sequence[str]
    above: tuple[list[int], list[int]]


@dataclass(frozen=True)
class Page:
    """Content of the page.

    Args:
        title: Title, such as ``fsdd``.
        run: Name of the run.
        metric: Name of the main score.
        score: Its value as text.
        detail: Text that qualifies it.
        bars: The main score beside its references.
        description: Sentences about data, split and model, by name.
        warnings: What the user should look at first.
        classes: Class names.
        multi_label: A clip may have several classes.
        clips: Clips of the test split.
        columns: Names of the scores of `rows`.
        rows: One per class.
        calibration: Sentences about calibration.
        reliability: Reliability diagram.
        curves: Learning curves.
        settings: All settings.
        command: The command that made the run.
        filters: Section about filters; None if there are none.
        corrected: Clip, label and former label of the corrections that the run was made with.
        decided: What decided the predictions of some clips, by path.
        folds: Name, address and score of each fold's page.
    """

    title: str
    run: str
    metric: str
    score: str
    detail: str
    bars: Sequence[Bar]
    description: Mapping[str, Sequence[str]]
    warnings: Sequence[str]
    classes: Sequence[str]
    multi_label: bool
    clips: Sequence[Judged]
    columns: Sequence[str]
    rows: Sequence[Row]
    calibration: Sequence[str]
    reliability: Markup
    curves: Sequence[Markup]
    settings: Mapping[str, Any]
    command: str
    filters: FilterSection | None = None
    corrected: Sequence[tuple[str, str, str]] = ()
    decided: Mapping[str, Importance] = field(default_factory=dict)
    folds: Sequence[tuple[str, str, str]] = ()


def write_page(folder: Path, page: Page, media: Media) -> None:
    """Writes ``report.html``.

    Args:
        folder: The run's folder.
        page: Its content.
        media: Embeds the clips: those of the filter section first, then errors and labels to
            check, then some others.
    """
    clips = errors_first(page.clips)[:MOST_CLIPS]
    place = {clip.path: i for i, clip in enumerate(clips)}
    seconds = {clip.path: clip.seconds for clip in page.clips}
    suspects = labels_to_check(page.clips, multi_label=page.multi_label)
    wrong = [c for c in clips if not c.is_right]
    errors = sum(not clip.is_right for clip in page.clips)
    if page.filters is not None:
        peaks = [peak.path for kernel in page.filters.kernels for peak in kernel.peaks]
        media.embed([page.filters.clip, *peaks])
    media.embed([*_with_near([*wrong, *suspects]), *_some_right(clips)])
    media.link(_with_near(clips))
    classes, entries = [printable(name) for name in page.classes], [_as_json(c) for c in clips]
    kept = {
        "key": f"spaudio {page.title} {page.run} {_digest_of_labels(classes, entries)}",
        "classes": classes,
        "several": page.multi_label,
        "clips": entries,
        # Errors, and correct clips.
        "left_out": [errors - len(wrong), len(page.clips) - len(clips) - errors + len(wrong)],
        "suspects": [place[c.path] for c in suspects if c.path in place],
        "media": {printable(path): _medium(m) for path, m in media.found.items()},
        "hertz": [
            [f"{hertz:g}", float(hz_to_mel(hertz) / hz_to_mel(media.top))]
            for hertz in shown_frequencies(media.top)
        ],
        "earlier": page.corrected,
        "decided": {
            printable(path): _cells(one, seconds[path], media.top)
            for path, one in page.decided.items()
        },
        "above": [row.above for row in page.rows],
        # What to do with the saved corrections.
        "use": "Pass the saved file to this recipe as labels=corrections.csv."
        if "labels" in page.settings
        else "This recipe does not read the saved file: correct the dataset itself.",
    }
    if classes != list(page.classes):
        kept["raw"] = list(page.classes)  # for the file of corrections
    # Without `<`, the text cannot end the script element. JSON escapes the two line separators,
    # which are invalid in the JavaScript of old browsers.
    text = json.dumps(kept, separators=(",", ":")).replace("<", "\\u003c")
    own = files("spaudio.report.page")
    style, script = ((own / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    environment = Environment(
        loader=PackageLoader("spaudio.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    linked = media.embedded < len(media.found)
    html = environment.get_template("page.html").render(
        page=page,
        nothing=[name for name in page.classes if is_nothing(name)],
        matrix=_matrix(page),
        pairs=_pairs(page),
        errors=errors,
        listed=len(clips),
        linked=linked,
        embedded=media.embedded,
        settings=[
            (name, shortened(value, name))
            for name, value in flatten(page.settings)
            if name not in ("overrides", "replaced")
        ],
        data=Markup(text),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script, linked),
    )
    write_atomic(folder / PAGE, html.encode("utf-8", "backslashreplace"))


def _digest_of_labels(classes: Sequence[str], clips: Sequence[Mapping[str, Any]]) -> str:
    """Identifies a page's clips and labels; browsers store the corrections of all pages together.

    The name of a run is not enough, because folds have the same names in all runs.
    """
    text = json.dumps([classes, [(clip["p"], clip["l"]) for clip in clips]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _with_near(clips: Sequence[Judged]) -> list[str]:
    """Paths of clips, each followed by those of similar training clips."""
    paths = (path for c in clips for path in (c.path, c.near_label, c.near_predicted))
    return [path for path in paths if path is not None]


def _some_right(clips: Sequence[Judged]) -> list[str]:
    """Paths of some correctly predicted clips of each class, the least confident first."""
    count: dict[int, int] = {}
    found = []
    for clip in clips:
        if clip.is_right and count.get(clip.predicted, 0) < _RIGHT:
            count[clip.predicted] = count.get(clip.predicted, 0) + 1
            found.append(clip.path)
    return found


def _as_json(clip: Judged) -> dict[str, Any]:
    """Returns a clip in the form that the script reads."""
    found: dict[str, Any] = {
        "p": printable(clip.path),
        "l": clip.labels,
        "t": [[index, round(chance, 4)] for index, chance in clip.top],
        "o": round(clip.own, 4),
        "s": round(clip.seconds, 2),
    }
    if found["p"] != clip.path:
        found["r"] = clip.path  # for the file of corrections
    if clip.group != clip.path:
        found["g"] = printable(clip.group)
    if clip.near_label or clip.near_predicted:
        found["n"] = [p and printable(p) for p in (clip.near_label, clip.near_predicted)]
    if clip.fold is not None:
        found["f"] = printable(clip.fold)
    return found


def _cells(decided: Importance, seconds: float, top: float) -> list[list[float]]:
    """Left, right, lower and upper edge and weight of cells, all in [0, 1] of the spectrogram.

    Args:
        decided: What decided the class of a clip, of which segments may leave out the end.
        seconds: Length of the clip.
        top: Highest frequency of the spectrogram, in Hz.
    """
    across = np.minimum(decided.seconds / seconds, 1)
    up = np.minimum(hz_to_mel(decided.hertz) / hz_to_mel(top), 1)
    weight = decided.drop.clip(min=0) / max(decided.drop.max(), 1e-9)
    return [
        [*(round(float(v), 3) for v in (*across[j : j + 2], *up[i : i + 2], weight[i, j]))]
        for i in range(len(up) - 1)
        for j in range(len(across) - 1)
    ]


def _medium(medium: Medium) -> list[Any]:
    return [
        medium.sound, medium.picture, round(medium.start, 2), round(medium.seconds, 3),
        None if medium.peak is None else round(medium.peak),
    ]  # fmt: skip


def _matrix(page: Page) -> list[list[tuple[int, int]]] | None:
    """Number of clips and color of each cell; None if there are too many classes."""
    size = len(page.classes)
    if page.multi_label or size > CELLS:
        return None
    counts = [[0] * size for _ in range(size)]
    for clip in page.clips:
        counts[clip.labels[0]][clip.predicted] += 1
    return [[(n, -(-9 * n // max(1, sum(row)))) for n in row] for row in counts]


def _pairs(page: Page) -> list[tuple[int, int, int]]:
    """The most confused pairs of classes: label, prediction, number of clips."""
    count: dict[tuple[int, int], int] = {}
    for clip in page.clips:
        if not clip.is_right and not page.multi_label:
            pair = (clip.labels[0], clip.predicted)
            count[pair] = count.get(pair, 0) + 1
    ranked = sorted(count.items(), key=lambda entry: -entry[1])
    shown = PAIRS if len(page.classes) > CELLS else PAIRS_BESIDE
    return [(*pair, number) for pair, number in ranked[:shown]]


def _policy(style: str, script: str, linked: bool) -> str:
    """The content-security policy: the page loads nothing but its own content and linked sounds."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; "
        f"style-src 'sha256-{digest(style)}'; img-src data:; "
        f"media-src data:{' file: ' + chr(39) + 'self' + chr(39) if linked else ''}; "
        "base-uri 'none'; form-action 'none'"
    )
