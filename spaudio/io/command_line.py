"""What all commands share: output that any terminal can show, and errors in one line."""

import io
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spaudio.errors import SpaudioError, how_to_install
from spaudio.io.escape import printable_error, printable_lines

_PACKAGE = Path(__file__).parents[1]
_format = warnings.formatwarning


def set_up_terminal() -> None:
    r"""Prepares standard output, standard error and warnings for the user of a command.

    Characters that the encoding of the terminal lacks are written as ``\u65e5``; by default, Python
    would stop at a class name that has one. Warnings of this package are printed without the line
    of code that they come from, with which a user can do nothing.
    """
    # They are closed in a process that is started without them, as by some daemons.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _plain


def _plain(
    message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if category is UserWarning and Path(filename).is_relative_to(_PACKAGE):
        return f"{printable_lines(message)}\n"
    return _format(message, category, filename, lineno, line)


@contextmanager
def errors_in_one_line(
    *,
    tell: Callable[[Exception], object] | None = None,
    interrupted: str = "",
    extra: str | None = None,
) -> Iterator[None]:
    """Ends the process on an error that the user can correct, without a traceback.

    The exit code is 1, or 130 after Ctrl-C. If what reads standard output has closed it, as `head`
    does, the process ends silently with code 141, as if SIGPIPE had ended it.

    Args:
        tell: Prints the error; None prints it on standard error.
        interrupted: Printed on standard error after Ctrl-C.
        extra: Name of the extra that installs missing modules; None lets their error pass.
    """
    try:
        yield
        sys.stdout.flush()
    except (SpaudioError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            sys.exit(141)
        if tell is None:
            sys.exit(f"error: {printable_error(error)}")
        tell(error)
        raise SystemExit(1) from error
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        sys.exit(f"error: {printable_error(error)}; {how_to_install(extra)}")
    except KeyboardInterrupt:
        sys.stderr.write(interrupted)
        raise SystemExit(130) from None


def _reader_has_left() -> bool:
    """Whether what reads standard output, such as `head`, has closed it; output then ends."""
    try:
        sys.stdout.flush()
        gone = not sys.stdout.closed and _is_broken(sys.stdout.fileno())  # unbuffered
    except BrokenPipeError:
        gone = True
    except OSError:  # a stream without a descriptor
        return False
    if gone:
        # Python flushes once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _is_broken(descriptor: int) -> bool:
    """Whether a descriptor is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
