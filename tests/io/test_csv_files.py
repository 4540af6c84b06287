"""CSV files are read back as they were written."""

from pathlib import Path

from spaudio.io.csv_files import read_rows, write_rows


def test_cells_may_hold_any_character(tmp_path: Path) -> None:
    """With lines that end in LF, Python 3.11 itself quotes no carriage return."""
    rows = [{"a": "x\ry", "b": 'c"\n'}, {"b": "\t,"}]
    write_rows(tmp_path / "a.csv", ["a", "b"], rows)
    assert read_rows(tmp_path / "a.csv") == [rows[0], {"a": "", "b": "\t,"}]
