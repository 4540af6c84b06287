from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.fixtures.page_run import make_page_run


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved. They are not rendered, which takes most of a second each."""
    saved: list[Figure] = []

    def keep(figure: Figure, buffer: Any, **options: Any) -> None:
        saved.append(figure)
        buffer.write(b"a figure")

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


@pytest.fixture(scope="session")
def page_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run whose page has errors."""
    return make_page_run(tmp_path_factory.mktemp("page"))
