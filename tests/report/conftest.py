from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved. They are not rendered, which takes most of a second each."""
    saved: list[Figure] = []

    def keep(figure: Figure, buffer: Any, **options: Any) -> None:
        saved.append(figure)
        buffer.write(b"a figure")

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved
