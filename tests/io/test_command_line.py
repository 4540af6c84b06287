"""How a command ends on an error."""

import contextlib
import os
import sys
import warnings

import pytest

from spaudio.errors import ConfigError, DataError
from spaudio.io.command_line import errors_in_one_line, set_up_terminal
from spaudio.report.tables import show_rows


def test_an_error_of_the_user_is_one_line() -> None:
    for error, said in (
        (ConfigError("a\n\x1b[31m"), r"error: a\n\x1b[31m"),
        (DataError("bad:\n  a.wav: \x1b[31m\n  b.wav"), "error: bad:\n  a.wav: \\x1b[31m\n  b.wav"),
        (FileNotFoundError(2, "No such file", "x"), "error: [Errno 2] No such file: 'x'"),
    ):
        with pytest.raises(SystemExit) as ended, errors_in_one_line():
            raise error
        assert ended.value.code == said
    told: list[Exception] = []
    with pytest.raises(SystemExit) as ended, errors_in_one_line(tell=told.append):
        raise error
    assert (ended.value.code, told) == (1, [error])


def test_a_command_may_be_started_without_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    set_up_terminal()
    with errors_in_one_line():
        print("result")
    sys.stdout.close()
    sys.stderr.close()


def test_a_table_whose_reader_has_left_is_a_broken_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    file = os.fdopen(writer, "w")
    with pytest.raises(BrokenPipeError):  # rich ends the process with an exit code of its own
        show_rows([{"setting": "a"}], "Title", file)
    with contextlib.suppress(BrokenPipeError):
        file.close()


def test_ctrl_c_needs_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_in_one_line(interrupted="continue it\n"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "continue it\n"


def test_a_missing_module_is_named_with_its_extra() -> None:
    missing = ModuleNotFoundError("No module named 'rich'")
    remedy = r"error: No module named 'rich'; pip install '\.\[recipes\]'"
    with pytest.raises(SystemExit, match=remedy), errors_in_one_line(extra="recipes"):
        raise missing
    with pytest.raises(ModuleNotFoundError), errors_in_one_line():  # such as one of the user's own
        raise missing
