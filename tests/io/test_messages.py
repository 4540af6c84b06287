"""Messages are printed as they are."""

import warnings
from pathlib import Path

import pytest

import spaudio
from spaudio.io.command_line import set_up_terminal
from spaudio.io.messages import say, warn
from spaudio.io.progress import progress_bar


def test_names_are_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    path = f"runs/[work]/a[/b]/:dog:/{'long' * 40}"
    say(f"run: {path}")
    warn(path)
    with progress_bar(path, 1) as advance:
        advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"run: {path}\n{path}\n")
    assert err.count("[work]/a[/b]/") >= 3


def test_commands_print_warnings_without_the_line_of_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored afterwards
    set_up_terminal()
    own = str(Path(spaudio.__file__).parent / "x.py")
    assert warnings.formatwarning("it is damaged", UserWarning, own, 7) == "it is damaged\n"
    assert "y.py:7: UserWarning" in warnings.formatwarning("hm", UserWarning, "y.py", 7)
    assert "x.py:7: RuntimeWarning" in warnings.formatwarning("hm", RuntimeWarning, own, 7)
