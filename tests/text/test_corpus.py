"""A text as symbols: alphabet, split, and that a wrong one is refused."""

from pathlib import Path

import numpy as np
import pytest

from spaudio.audio.manifest import SPLITS
from spaudio.errors import DataError
from spaudio.text.corpus import ALPHABET, Corpus, SourceText, decode, prepare_corpus
from tests.fixtures.tiny_text import make_text


def source(*pieces: bytes, key: str = "k") -> SourceText:
    return SourceText("tiny", "tiny", True, key, lambda: iter(pieces))


def test_splits_are_contiguous_and_whole(tmp_path: Path) -> None:
    text = make_text(2_001 - len(ALPHABET)) + ALPHABET
    corpus = prepare_corpus(source(text[:700].encode(), f"{text[700:]}\n".encode()), tmp_path)
    parts = [corpus.split(name) for name in SPLITS]
    assert [len(part) for part in parts] == [1800, 100, 101]
    assert decode(np.concatenate(parts)) == text  # an editor's final newline is not of the text
    assert isinstance(corpus.symbols, np.memmap)
    assert corpus.symbols.max() == 26


def test_of_text8_the_split_is_the_standard_one() -> None:
    corpus = Corpus("text8", False, np.broadcast_to(np.uint8(0), 100_000_000), "")
    assert [len(corpus.split(name)) for name in SPLITS] == [90_000_000, 5_000_000, 5_000_000]


def test_a_text_is_encoded_once(tmp_path: Path) -> None:
    first = prepare_corpus(source(b"once"), tmp_path)

    def fail() -> list[bytes]:
        raise AssertionError

    again = prepare_corpus(SourceText("tiny", "tiny", True, "k", fail), tmp_path)
    assert again.sha256 == first.sha256
    assert decode(prepare_corpus(source(b"other", key="l"), tmp_path).symbols) == "other"


@pytest.mark.parametrize("name", ["symbols.bin", "corpus.json"])
@pytest.mark.parametrize("damage", [b"", b"\0\0\0\0", b"[]", b"{"])
def test_a_damaged_text_is_made_anew(tmp_path: Path, name: str, damage: bytes) -> None:
    prepare_corpus(source(b"once"), tmp_path)
    [file] = tmp_path.glob(f"*/{name}")
    file.unlink()
    file.write_bytes(damage)
    with pytest.warns(UserWarning, match="is damaged; it is recreated"):
        corpus = prepare_corpus(source(b"once"), tmp_path)
    assert decode(corpus.symbols) == "once"


@pytest.mark.parametrize(
    ("pieces", "match"),
    [
        ((b"ab", b"Cd"), "b'C'"),
        ((b"a\n", b"b"), "more than one line"),
        ((b"\n",), "empty"),
        ((b"ab ", b"", b" cd"), "several spaces in a row; .*clean=FILE"),
    ],
)
def test_a_wrong_text_leaves_nothing(tmp_path: Path, pieces: tuple[bytes, ...], match: str) -> None:
    with pytest.raises(DataError, match=match):
        prepare_corpus(source(*pieces), tmp_path)
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and f.name != "lock"]
