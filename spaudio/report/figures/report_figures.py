"""The figures of one report: draws them, records failures, links them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from spaudio.io.escape import for_markdown
from spaudio.io.full_disk import is_full


class Figures:
    """Draws the figures of a report. A failure is named in the report and stops nothing.

    Args:
        folder: Folder of the report.

    Attributes:
        failed: Reason why a figure could not be drawn, by its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failed: dict[str, str] = {}

    def draw(self, name: str, draw: Callable[[Path], object]) -> None:
        """Calls ``draw`` with the path of ``<name>.png``, and records a failure."""
        self.attempt(f"{name}.png", draw)

    def attempt(self, name: str, draw: Callable[[Path], object]) -> None:
        """Calls ``draw`` with the path of a file, and records a failure."""
        path = self.folder / name
        try:
            path.unlink(missing_ok=True)  # from an earlier report
            draw(path)
        except Exception as error:  # matplotlib raises anything
            if is_full(error):  # what is not written now would be missing from a finished run
                raise
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            self.failed[name] = said
            warnings.warn(f"{path} could not be drawn ({said})", stacklevel=2)

    def links(self, *names: str) -> list[str]:
        """Returns Markdown: a link to each existing figure, and a line for each failure."""
        drawn = [name for name in names if (self.folder / f"{name}.png").is_file()]
        return [
            *(f"![{for_markdown(name)}]({quote(name)}.png)" for name in drawn),
            *(
                f"- {for_markdown(name)} could not be drawn ({for_markdown(reason)})"
                for name, reason in self.failed.items()
            ),
        ]
