"""Output in encodings that lack some characters."""

import io
import sys


def escape_unencodable() -> None:
    r"""Makes standard output and error write characters that they cannot encode as ``\u65e5``.

    For commands: by default, Python would stop at a class name that the terminal cannot show.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
