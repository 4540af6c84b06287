"""What tests of several rooms share: a recipe's command line, run in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests import RECIPES


@dataclass(frozen=True)
class Done:
    """What a command came to: exit code and both streams."""

    code: int
    out: str
    err: str


RunRecipe = Callable[..., Done]


@pytest.fixture
def run_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunRecipe:
    """Runs ``recipes/<name>/run.py`` in ``tmp_path``; the caller checks the exit code."""
    from spaudio.experiment.entry import main  # seconds, which tests of the filters are spared

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(name: str, *arguments: str) -> Done:
        capsys.readouterr()
        code = 0
        try:
            main(str(RECIPES / name / "run.py"), arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def _seed() -> None:
    """A test draws the same weights in any order of the tests."""
    import torch  # seconds, which the process is spared that only distributes the tests

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    """Other tests keep their number of threads, which benchmarks change."""
    import torch

    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


def write_blank(self: Any, file: BinaryIO, **options: Any) -> None:
    """Stands in for `Figure.savefig`."""
    file.write(b"blank")


def _write_blank_page(run: Path, *_: object, **__: object) -> None:
    (run / "report.html").write_text("blank")
    (run / "clips.jsonl").write_text("blank")


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leaves figures and pages of reports blank, which take most of the time of a tiny run."""
    patch.setattr("matplotlib.figure.Figure.savefig", write_blank)
    patch.setattr("spaudio.experiment.tasks.classification.write_run_page", _write_blank_page)
    patch.setattr("spaudio.experiment.folds.write_fold_page", _write_blank_page)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn: figures and pages of reports are blank."""
    draw_nothing(monkeypatch)


@pytest.fixture(scope="session")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ``recipes/folder`` on 60 spoken digits; its data are in ``sounds`` above.

    No test may write into it.
    """
    import spaudio
    from tests.fixtures.own_sounds import make_own_sounds

    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw_nothing(patch)
        done = spaudio.train(
            make_own_sounds(folder / "sounds"),
            preset="debug",
            run_id="own",
            group_regex=r"(\w+)_\d",
            tokens={"sample_rate": 8000, "normalise": "clip_level"},
            filter="depthwise",
            page=False,
            # With MixStyle two epochs teach it too little.
            **{"about.licence": "CC BY-SA 4.0", "augment.mixstyle": 0},
        )
    return folder / done.run
