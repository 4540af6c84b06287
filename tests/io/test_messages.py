"""Messages are printed as they are."""

import pytest

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
