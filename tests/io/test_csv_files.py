"""CSV files are read back as they were written."""

from pathlib import Path

from spaudio.io.csv_files import read_csv, read_rows, write_rows


def test_cells_may_hold_any_character(tmp_path: Path) -> None:
    """With lines that end in LF, Python 3.11 itself quotes no carriage return."""
    rows = [{"a": "x\ry", "b": 'c"\n'}, {"b": "\t,"}]
    write_rows(tmp_path / "a.csv", ["a", "b"], rows)
    assert read_rows(tmp_path / "a.csv") == [rows[0], {"a": "", "b": "\t,"}]


def test_lines_are_numbered_as_in_the_file_and_empty_ones_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(' , \n\n Name,Label\na,"x\ny"\n,\nb\n', encoding="utf-8")
    assert read_csv("table", file) == [
        (5, {"name": "a", "label": "x\ny"}),
        (7, {"name": "b", "label": ""}),
    ]
