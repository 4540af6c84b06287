from __future__ import annotations

import json
from pathlib import Path

from spaudio.report.report_files import figure_lines, filter_choice, write_files


def test_a_report_names_the_options_of_its_filter() -> None:
    bank = {"name": "bank", "num_filters": 36, "scales": None, "gains": "shared"}
    assert filter_choice({"filter": bank}) == "`bank` (num_filters=36, gains=shared)"
    assert bank["name"] == "bank", "the report must not change"
    assert filter_choice({"filter": {"name": "none"}}) == "`none`"


def test_only_existing_figures_are_linked(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    assert figure_lines(tmp_path, "a", "b") == ["![b](b.png)"]
    write_files(tmp_path, {"a": 1}, ["# title", "text"])
    assert (tmp_path / "report.md").read_text() == "# title\ntext\n"
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}
