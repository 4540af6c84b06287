"""Escapes names and other user text for terminals, Markdown and figures.

Names of classes, files and runs are arbitrary text. Each function returns text that is shown
literally: it cannot become markup, a formula or a control sequence. For CSV files, see
:mod:`spaudio.io.csv_files`.
"""

import re
import unicodedata

_LONGEST = 40  # characters of a name in a figure
# `_` inside a word and brackets that are not followed by a target are not markup.
_MARKDOWN = re.compile(r"[\\`*<>|&~$]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])")


def printable(text: object) -> str:
    r"""Replaces control and other unprintable characters, for one line of a terminal or a file.

    Bytes of a file name that are not UTF-8 become ``\xff``.
    """
    return "".join(c if c.isprintable() else _code(c) for c in str(text))


def printable_lines(text: object, end: str = "\n") -> str:
    """Does the same as :func:`printable` for text of several lines, which ``end`` separates."""
    return end.join(map(printable, str(text).split(end)))


def printable_error(error: object) -> str:
    """Returns the message of an error for the terminal.

    Its line ends are kept only before indented lines, such as those of a list of files, so that no
    name can look like a message of its own.
    """
    return printable_lines(error, "\n  ")


def writable(text: object) -> str:
    """Replaces control characters and bytes that are not UTF-8, which a text file cannot hold.

    Unlike :func:`printable`, it keeps all other characters, so that a path still names its file.
    """
    return "".join(_code(c) if unicodedata.category(c) in ("Cc", "Cs") else c for c in str(text))


def for_markdown(text: object) -> str:
    """Escapes text for a line or a table cell of Markdown, including HTML."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))


def for_figure(text: object, longest: int = _LONGEST) -> str:
    """Escapes ``$``, which starts a formula in matplotlib, and shortens long text in the middle."""
    shown = printable(text)
    if len(shown) > longest:
        shown = f"{shown[: longest // 2]}…{shown[-(longest // 2) :]}"
    return shown.replace("$", r"\$")


def _code(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name; see os.fsdecode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
