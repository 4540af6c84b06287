"""Draws what filters gain on audio, from the results of the studies in ``recipes/study``.

    python docs/gains.py   # writes figures/gains.png

A row is the effect of one setting; its interval and those of all others are in the studies' pages.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spaudio.report.figures.drawing import make_figure, save_figure
from spaudio.report.study_effects import Effect, measure_effects
from spaudio.report.study_records import read_results

HERE = Path(__file__).parent
STUDIES = HERE.parent / "recipes" / "study"
#: Title of a group: for each row its label, setting and the setting that it is compared with.
Rows = tuple[tuple[str, str, str], ...]
STUDY: dict[str, Rows] = {
    "Without the stem (4,000 steps)": (
        ("depthwise filter", "stemless-default-depthwise", "stemless-default"),
        ("no filter, 10 % more steps", "stemless-default-longer-10", "stemless-default"),
        (
            "depthwise filter, earlier augmentation",
            "earlier-stemless-default-depthwise",
            "earlier-stemless-default",
        ),
        (
            "10 % more steps, earlier augmentation",
            "earlier-stemless-default-longer-10",
            "earlier-stemless-default",
        ),
    ),
    "Without the stem (1,500 steps, earlier augm.)": (
        ("depthwise filter", "stemless-depthwise", "stemless"),
        ("bank of 36 kernels", "stemless-bank", "stemless"),
        ("no filter, 10 % more steps", "stemless-longer-10", "stemless"),
    ),
    "With the stem, the default (4,000 steps)": (
        ("depthwise filter", "default-depthwise", "default"),
        ("depthwise filter, earlier augmentation", "earlier-default-depthwise", "earlier-default"),
    ),
    "With the stem (1,500 steps, earlier augm.)": (
        ("depthwise filter", "depthwise", "none"),
        ("bank of 36 kernels", "bank", "none"),
    ),
}
ADAPTERS: dict[str, Rows] = {
    "In a frozen Whisper encoder": (
        ("depthwise filter", "depthwise", "probe"),
        ("LoRA, as many parameters", "lora-r1", "probe"),
    ),
}


def measure() -> dict[str, list[tuple[str, Effect]]]:
    """Returns the label and effect of each row, by group."""
    found = {}
    for file, groups in (("study.csv", STUDY), ("adapters.csv", ADAPTERS)):
        results = read_results(STUDIES / file)
        for title, rows in groups.items():
            effects = [measure_effects(results, {setting: other})[0] for _, setting, other in rows]
            found[title] = [(row[0], one) for row, one in zip(rows, effects, strict=True)]
    return found


def draw(groups: Mapping[str, Sequence[tuple[str, Effect]]], path: Path) -> None:
    """Draws what :func:`measure` returns: effects with intervals, and the mean on each dataset."""
    figure = make_figure(8, 5.2)
    axes = figure.subplots()
    axes.axvline(0, color="0.5", linewidth=1)
    labels: list[str] = []
    heads: set[int] = set()
    dots: dict[str, list[tuple[float, int]]] = {}
    for title, rows in groups.items():
        heads.add(len(labels))
        labels.append(title)
        for label, one in rows:
            y = len(labels)
            labels.append(label)
            axes.plot([100 * one.low, 100 * one.high], [y, y], color="black", lw=2, zorder=2)
            axes.scatter(100 * one.mean, y, marker="D", s=34, color="black", zorder=4,
                         label=None if dots else "mean and 95 % interval")  # fmt: skip
            for name, values in one.differences.items():
                dots.setdefault(name, []).append((100 * float(values.mean()), y))
    for i, (name, points) in enumerate(dots.items()):
        axes.scatter(*zip(*points, strict=True), s=18, color=f"C{i}", label=name, zorder=5)
    axes.set_yticks(range(len(labels)), labels, fontsize=10)
    for row, tick in enumerate(axes.get_yticklabels()):
        tick.set_fontweight("bold" if row in heads else "normal")
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.set_xlabel("points of test accuracy, minus no filter", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=9)
    save_figure(figure, path)


if __name__ == "__main__":
    draw(measure(), HERE / "figures" / "gains.png")
