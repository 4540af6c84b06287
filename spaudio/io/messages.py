"""Messages to the user, on standard error."""

from rich.console import Console

from spaudio.io.escape import printable_lines


def say(text: object, style: str | None = None) -> None:
    """Prints a message literally: not wrapped, and without markup, which a path may look like.

    Control characters, with which a name could change the terminal, are escaped.

    Args:
        text: The message.
        style: Colour on a terminal.
    """
    Console(stderr=True, emoji=False).print(
        printable_lines(text), style=style, soft_wrap=True, markup=False, highlight=False
    )


def warn(text: object) -> None:
    """Prints a warning, or an error that does not end the program."""
    say(text, "yellow")
