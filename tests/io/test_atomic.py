"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from spaudio.errors import ConfigError
from spaudio.io.atomic import new_folder, write_atomic
from spaudio.io.output import check_output


def test_a_file_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    file = tmp_path / ("\u3042" * 83 + ".txt")  # 253 bytes
    write_atomic(file, b"text")
    check_output(file, "--output", force=True)
    assert [*tmp_path.iterdir()] == [file]
    with pytest.raises(
        ConfigError, match=r"--output .* has 256 bytes, and may have 255; give a shorter"
    ):
        check_output(file.with_name("\u3042" * 84 + ".txt"), "--output")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "a[1]"
    with new_folder(folder) as staging:
        (staging / "whole").touch()
        assert [*folder.parent.iterdir()] == [staging]
    assert [*folder.parent.iterdir()] == [folder]
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert folder.stat().st_mode & 0o777 == 0o755
    other = folder.with_name("other")
    with pytest.raises(FileNotFoundError), new_folder(other) as staging:
        (staging / "none").rename(staging / "half")
    assert [*folder.parent.iterdir()] == [folder]


def test_only_with_a_lock_is_what_others_have_left_removed(tmp_path: Path) -> None:
    folder, left = tmp_path / "a[1]", tmp_path / ".a[1].12345678"
    left.mkdir()
    with new_folder(folder):  # perhaps another process is filling the other one
        assert left.is_dir()
    folder.rmdir()
    with new_folder(folder, locked=True):
        assert not left.exists()
