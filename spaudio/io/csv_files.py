"""CSV files: those of this package, those that users write, and text for a spreadsheet."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from spaudio.errors import ConfigError, DataError, some
from spaudio.io.atomic import write_atomic

#: First characters that make a spreadsheet read a cell as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read_csv(setting: str, file: Path, *, delimiter: str = ",") -> list[tuple[int, dict[str, str]]]:
    """Returns the rows of a CSV file with a header: for each, its line in the file and its cells.

    Column names are stripped and in lower case. Blank lines are skipped, even before the header.

    Args:
        setting: The setting that names the file, for messages.
        file: The file, in UTF-8.
        delimiter: What separates cells. With tabs, quotation marks are part of the text.

    Raises:
        ConfigError: If it cannot be read, or is not CSV.
        DataError: If two columns have the same name, or a line has more cells than there are
            columns.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            plain: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if delimiter == "\t" else {}
            # Otherwise a single quotation mark would silently swallow the lines after it.
            reader = csv.reader(text, delimiter=delimiter, strict=True, **plain)
            lines = [(reader.line_num, cells) for cells in reader if "".join(cells).strip()]
    except UnicodeDecodeError as error:
        form = "as CSV in UTF-8" if delimiter == "," else "in UTF-8"
        raise ConfigError(f"{setting}={file} is not in UTF-8; save it {form}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting}={file} cannot be read ({error}); check the path") from error
    except csv.Error as error:
        raise ConfigError(
            f"{setting}={file} is not CSV ({error}, in or before line {reader.line_num}); check "
            "its quotation marks"
        ) from error
    names = [name.strip().lower() for name in lines[0][1]] if lines else []
    if repeated := [name for name, number in Counter(filter(None, names)).items() if number > 1]:
        raise DataError(
            f"{setting}={file} has more than one column {some(repeated)}; keep one, or rename them"
        )
    for number, cells in lines:
        if len(cells) > len(names):
            raise DataError(
                f"{file}, line {number}: more cells than columns; "
                + (
                    "enclose values that contain a comma in quotation marks"
                    if delimiter == ","
                    else "remove what follows the last column"
                )
            )
    return [(n, dict(zip_longest(names, cells, fillvalue=""))) for n, cells in lines[1:]]


def write_rows(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV file with a header, whole or not at all.

    Args:
        path: File to write.
        columns: Names of the columns.
        rows: Cells by column; those that a row lacks stay empty.
    """
    names = list(columns)
    lines = ([row.get(name, "") for name in names] for row in rows)
    write_atomic(path, csv_text([names, *lines]).encode())


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Returns lines of CSV that end with LF; cells may hold any character."""
    lines = []
    for row in rows:
        line = io.StringIO()
        # With LF alone, Python 3.11 does not quote a cell with a carriage return.
        csv.writer(line, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def read_rows(
    path: Path, columns: Sequence[str] = (), *, remedy: str = "check the path"
) -> list[dict[str, str]]:
    """Reads a CSV file, also one that a spreadsheet has saved.

    Args:
        path: The file.
        columns: Names of its columns; if empty, the first line names them.
        remedy: What to do if the file cannot be opened, for the message.

    Raises:
        DataError: If the file cannot be read.
        ValueError: If it is not CSV in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets add a mark
            return list(csv.DictReader(file, columns or None))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except csv.Error as error:
        raise ValueError(str(error)) from error


def for_csv(text: str) -> str:
    """Prefixes an apostrophe to text that would start a formula in a spreadsheet.

    Text that starts with an apostrophe gets another one, so that :func:`from_csv` can undo this.
    """
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def from_csv(cell: str) -> str:
    """Undoes :func:`for_csv`."""
    return cell[1:] if cell.startswith(tuple(f"'{sign}" for sign in (*FORMULA, "'"))) else cell
