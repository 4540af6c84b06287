from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spaudio.audio.layout import find_root
from spaudio.errors import ConfigError, DataError


def test_the_root_is_found_up_to_two_levels_down_and_in_an_archive(tmp_path: Path) -> None:
    root = tmp_path / "given" / "wrapped" / "set-1.0"
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "list.csv").write_text("a\n")
    for source in (root, root.parent, root.parent.parent):
        assert find_root(source, tmp_path, "meta/list.csv", "there") == root
    with pytest.raises(DataError, match=r"holds no meta/list\.csv; it is to be had there"):
        find_root(tmp_path, tmp_path, "meta/list.csv", "it is to be had there")
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", root.parent)
    found = find_root(archive, tmp_path / "work", "meta", "there")
    assert found.name == "set-1.0"
    assert found.parent.parent == tmp_path / "work"


def test_without_a_source_it_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source= is required, an archive or folder: over there"):
        find_root(None, tmp_path, "meta", "over there")
