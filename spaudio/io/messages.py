"""Messages to the user, on standard error."""

from rich.console import Console


def say(text: object, style: str | None = None) -> None:
    """Prints a message as it is: not wrapped, and without markup, which a path may look like.

    Args:
        text: The message.
        style: Colour on a terminal.
    """
    Console(stderr=True, emoji=False).print(
        text, style=style, soft_wrap=True, markup=False, highlight=False
    )


def warn(text: object) -> None:
    """Prints a warning, or an error that does not end the program."""
    say(text, "yellow")
