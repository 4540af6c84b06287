"""What prevents a run from being continued is said at once, with what to do."""

from pathlib import Path
from typing import Any

import pytest

from spaudio.errors import ConfigError
from spaudio.experiment import start
from spaudio.experiment.compose import compose
from spaudio.experiment.data import load_data
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.start import start_run
from tests import RECIPES


def audio(*given: str) -> AudioSettings:
    settings = compose(RECIPES / "folder", list(given))
    assert isinstance(settings, AudioSettings)
    return settings


@pytest.mark.parametrize(
    ("changed", "given", "said"),
    [
        (
            {"recipe": "birds", "prep": "prep"},
            (),
            r"a run of birds, .*resume it with birds/run\.py",
        ),
        (
            {},
            ("model=pretrained", "model.source=gone/from/here"),
            r"no folder gone/from/here; correct model\.source in .*x/config\.yaml",
        ),
    ],
)
def test_a_run_that_cannot_be_resumed_here(
    changed: dict[str, Any],
    given: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = audio("source=x", *given)
    for name, value in changed.items():
        setattr(own, name, value)
    monkeypatch.setattr(start, "read_run_settings", lambda run: own)
    monkeypatch.setattr(start, "refuse_elsewhere", lambda run, own: None)
    with pytest.raises(ConfigError, match=said):
        start_run(audio(f"resume={tmp_path / 'x'}"), RECIPES / "folder" / "run.py")


def test_a_script_that_no_longer_takes_the_settings_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "data_prep").mkdir()
    (tmp_path / "data_prep" / "folder.py").write_text(
        "def prepare(work, *, source=None):\n    return source\n"
    )
    with pytest.raises(ConfigError, match=r"prepare of folder\.py .* unexpected keyword argument"):
        load_data(audio("source=x"), tmp_path / "recipes" / "folder")
