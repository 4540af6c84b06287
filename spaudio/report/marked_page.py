"""Markdown pages in which a part is written by a command and the rest by hand."""

from pathlib import Path

from spaudio.io.atomic import write_atomic

PLACE = "<!-- results -->"  # a line of its own, before and after the written part


def has_place(page: Path) -> bool:
    """Returns whether a file is a page with a place for results."""
    try:
        return page.is_file() and page.read_text("utf-8").splitlines().count(PLACE) == 2
    except (OSError, ValueError):
        return False


def fill_place(page: Path, text: str) -> None:
    """Writes results to the place of a page; a page without one is overwritten."""
    text = f"{text.rstrip()}\n"
    if has_place(page):
        lines = page.read_text("utf-8").splitlines()
        first, last = (i for i, line in enumerate(lines) if line == PLACE)
        before, after = "\n".join(lines[: first + 1]), "\n".join(lines[last:])
        text = f"{before}\n\n{text}\n{after}\n"
    write_atomic(page, text.encode())
