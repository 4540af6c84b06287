"""CSV files that users write, as spreadsheets save them, and text that a spreadsheet may read."""

import csv
from collections import Counter
from pathlib import Path

from spaudio.errors import ConfigError, DataError, some

#: First characters that make a spreadsheet read a cell as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read_csv(setting: str, file: Path) -> list[tuple[int, dict[str, str]]]:
    """Returns the rows of a CSV file with a header: for each, its line in the file and its cells.

    Names of columns are in lower case, without the blanks around them; rows without any content are
    left out.

    Args:
        setting: The setting that names the file, for messages.
        file: The file, in UTF-8.

    Raises:
        ConfigError: If it cannot be read.
        DataError: If two columns have the same name, or a line has more cells than there are
            columns.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{setting}={file} is not in UTF-8; save it as CSV in UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{setting}={file} cannot be read ({error}); check the path") from error
    names = Counter(name for name in reader.fieldnames if name)
    if repeated := [name for name, number in names.items() if number > 1]:
        raise DataError(
            f"{setting}={file} has more than one column {some(repeated)}; keep one, or rename them"
        )
    rows = [(n, row) for n, row in rows if any("".join(c or "").strip() for c in row.values())]
    for number, row in rows:
        if None in row:  # cells beyond the last column
            raise DataError(
                f"{file}, line {number}: more cells than columns; put values that hold a comma "
                "between quotation marks"
            )
    return rows


def for_csv(text: str) -> str:
    """Puts an apostrophe before text that a spreadsheet would read as a formula, or before one."""
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def from_csv(cell: str) -> str:
    """Undoes :func:`for_csv`."""
    return cell[1:] if cell.startswith(tuple(f"'{sign}" for sign in (*FORMULA, "'"))) else cell
