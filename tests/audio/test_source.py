import shutil
from pathlib import Path

import pytest

from spaudio.audio import source as module
from spaudio.audio.source import (
    Archive,
    find_root,
    folds_of_table,
    link_parts,
    open_parts,
    read_table,
)
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_corpora import pack

A = Archive("a", {"http://host/a.tar.gz": "0" * 64}, folder="set-a")
B = Archive("b", {"http://host/b.tar.gz": "1" * 64}, marker="only_b.txt")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """``set-a/clip`` and, without a folder of its own, ``only_b.txt``."""
    for name in ("a/set-a/clip", "b/only_b.txt"):
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    return tmp_path / "made"


def test_parts_are_found_unpacked_packed_or_mixed(made: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    for name in "ab":
        pack(made / name, packed / f"{name}.tar.gz")
    for source in (made, packed):
        found = open_parts([A, B], tmp_path / "work", str(source))
        assert (found["a"] / "clip").read_text() == "a/set-a/clip"
        assert (found["b"] / "only_b.txt").is_file()
        open_parts([A, B], tmp_path / "work", str(source))
    assert len(list((tmp_path / "work").iterdir())) == 2  # unpacked once
    # A single archive or the part's own folder will do where one part is wanted.
    for alone in (packed / "a.tar.gz", made / "a" / "set-a", made / "a"):
        assert (open_parts([A], tmp_path / "work", str(alone))["a"] / "clip").is_file()


def test_everything_that_is_missing_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"1 of 2 parts[^@]*b: no only_b.txt, nor .*host/b\.tar\.gz"
    ):
        open_parts([A, B], tmp_path / "work", str(made / "a"))
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"2 of 2 parts[^@]*a: no set-a, [^@]*b: no only_b"):
        open_parts([A, B], tmp_path / "work", str(tmp_path / "void"))


def test_every_archive_is_downloaded_with_its_checksum(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(url: str, target: Path, checksum: str | None) -> Path:
        asked.append((url, checksum))
        return pack(made / target.name[0], target)

    monkeypatch.setattr(module, "download", download)
    found = open_parts([A, B], tmp_path / "work", None)
    assert asked == [*A.files.items(), *B.files.items()]
    assert (found["a"] / "clip").is_file()
    unsure = Archive("c", {"http://host/c.tar.gz": None})
    with pytest.raises(ConfigError, match=r"source= is required.*http://host/c\.tar\.gz"):
        open_parts([A, unsure], tmp_path / "work", None)
    assert len(asked) == 2


def test_linked_parts_have_the_same_paths_wherever_they_lie(made: Path, tmp_path: Path) -> None:
    root = link_parts({"x": made / "a" / "set-a", "y": made / "b"}, tmp_path / "work")
    assert (root / "x" / "clip").is_file()
    assert [path.name for path in (root / "y").glob("*.txt")] == ["only_b.txt"]
    left = root.with_name(f".{root.name}.12345678")  # by a process that was killed
    root.rename(left)
    assert link_parts({"y": made / "b", "x": made / "a" / "set-a"}, tmp_path / "work") == root
    assert not left.exists()
    assert link_parts({"x": made / "a" / "set-a", "y": made / "a"}, tmp_path / "work") != root


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
    assert found.relative_to(tmp_path / "work").parts[1:] == ("set-1.0",)
    with pytest.raises(ConfigError, match="source= is required, an archive or folder: over there"):
        find_root(None, tmp_path, "meta", "over there")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("name,fold,class,id,from\na.wav,1,dog,0,x\nb.wav,2,cat,1,y\n")
    columns = {"path": "audio/{name}", "label": "class", "number": "id", "group": "from"}
    clips, labels = folds_of_table(read_table(file), **columns)
    found = [(c.path, c.fold, c.group) for c in clips]
    assert found == [("audio/a.wav", 1, "x"), ("audio/b.wav", 2, "y")]
    assert labels == ["dog", "cat"]
    marked = file.read_text().encode("utf-8-sig")  # as some programs begin a file
    file.write_bytes(marked)
    assert folds_of_table(read_table(file), **columns) == (clips, labels)
    file.write_text("name,class\na.wav,dog\n")
    with pytest.raises(DataError, match="table is damaged"):
        folds_of_table(read_table(file), **columns)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"table\.csv: cannot be read"):
        read_table(file)
