"""Draws the charts and prints the table of the results in ``results.csv``.

    python docs/results.py   # writes figures/results.png, recipes/*/results.png; prints the table

The CSV has one row per result: ours (from scratch, pretrained, and these two together), the
classical floor, and published models that were trained from scratch. ``source`` is the page with
the command, or where a value was published.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

HERE = Path(__file__).parent
KINDS = {
    "floor": ("classical floor", "#777777", "--"),
    "scratch": ("ours, from scratch", "#1f5fa8", "o"),
    "pretrained": ("ours, frozen Whisper tiny.en and a linear head", "#c4551a", "D"),
    "together": ("ours, the two together", "#2e7d32", "s"),
    "published": ("published, from scratch", "#222222", "^"),
}
Row = Mapping[str, str]


def read(path: Path = HERE / "results.csv") -> list[Row]:
    """Reads the rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table: one line per dataset, one column per kind of ours."""
    kinds = ["floor", "scratch", "pretrained", "together"]
    lines = [
        "| Data, protocol | Floor | From scratch | Frozen Whisper tiny.en | Both together |",
        "|---|--:|--:|--:|--:|",
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = {row["kind"]: row for row in rows if row["data"] == data}
        shown = [_value(own[kind]) if kind in own else "" for kind in kinds]
        lines.append(f"| {data}, {next(iter(own.values()))['protocol']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws accuracy over parameters, one panel per dataset."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(max(3 * columns, 5), 2.9 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        _panel(axis, name, [row for row in rows if row["data"] == name])
    handles = {
        label: Line2D([], [], color=color, **_style(mark))
        for kind, (label, color, mark) in KINDS.items()
        if any(row["kind"] == kind for row in rows)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=110)


def by_recipe(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each recipe's datasets, by its folder."""
    recipes = {row["data"]: row["source"].removesuffix("/README.md")
               for row in rows if row["kind"] == "scratch"}  # fmt: skip
    return {
        recipe: [row for row in rows if recipes[row["data"]] == recipe]
        for recipe in dict.fromkeys(recipes.values())
    }


def _panel(axis: Axes, name: str, rows: Sequence[Row]) -> None:
    axis.set_title(name, fontsize=10)
    for row in rows:
        _, color, mark = KINDS[row["kind"]]
        style = _style(mark)
        accuracy = float(row["accuracy"])
        if row["kind"] == "floor":
            axis.axhline(accuracy, color=color, **style)
            continue
        error = float(row["std"]) if row["std"] else None
        size = float(row["parameters"])
        axis.errorbar(size, accuracy, error, color=color, capsize=3, **style)
        if row["kind"] == "published":
            place = (0, 10 if accuracy > 0.83 else -11)  # above the error bars of ours
            axis.annotate(row["model"], (size, accuracy), place, textcoords="offset points",
                          ha="center", fontsize=7)  # fmt: skip
    lowest = min(0.4, *(float(row["accuracy"]) - 0.05 for row in rows))
    axis.set(xscale="log", xlim=(1e4, 1e9), ylim=(lowest, 1.08))
    axis.set_xlabel("parameters", fontsize=8)
    axis.set_ylabel("test accuracy", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(visible=True, alpha=0.25)


def _style(mark: str) -> dict[str, Any]:
    return {"linestyle": mark} if mark == "--" else {"marker": mark, "linestyle": "none"}


def _value(row: Row) -> str:
    return row["accuracy"] + (f" ± {row['std']}" if row["std"] else "")


if __name__ == "__main__":
    found = read()
    draw(found, HERE / "figures" / "results.png")
    for recipe, rows in by_recipe(found).items():
        draw(rows, HERE.parent / recipe / "results.png")
    print(table(found))
