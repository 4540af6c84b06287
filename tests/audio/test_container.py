import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spaudio.audio import decode
from spaudio.audio.container import CONTAINERS, truncation
from spaudio.errors import AudioError
from tests.fixtures.tiny_audio import RATE, tone

# Of each container the default encoding, and those that are framed or counted in another way.
WRITABLE = [
    *((name, None) for name in sorted(CONTAINERS) if name in soundfile.available_formats()),
    *(("OGG", "OPUS"), ("NIST", "ULAW"), ("AIFF", "IMA_ADPCM"), ("CAF", "ALAC_16")),
    *(("WAV", "MS_ADPCM"), ("W64", "DOUBLE"), ("AU", "ALAW"), ("FLAC", "PCM_24")),
]


@pytest.mark.parametrize(("container", "subtype"), WRITABLE)
def test_whole_files_are_taken_and_cut_ones_are_not(
    tmp_path: Path, container: str, subtype: str | None
) -> None:
    whole = tmp_path / "whole"
    wave = tone(1, np.random.default_rng(0), 3 + 1 / RATE)  # a sample more: chunks need padding
    try:
        soundfile.write(whole, wave, RATE, format=container, subtype=subtype)
    except soundfile.LibsndfileError as error:
        pytest.skip(str(error))
    assert len(decode(whole)[0]) >= 3 * RATE + 1
    content = whole.read_bytes()
    mpeg = soundfile.info(whole).format in ("MP3", "MPEG")  # to a hundredth, as documented
    for share in (0.05, 0.3, 0.6, 0.9, 0.98 if mpeg else 1 - 2 / len(content)):
        whole.write_bytes(content[: round(share * len(content))])
        with pytest.raises(AudioError, match=r"truncated|damaged|not audio|no samples"):
            decode(whole)


def test_every_page_of_ogg_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, tone(1, np.random.default_rng(0), 3), RATE, format="OGG")
    content = path.read_bytes()
    assert truncation(path, "OGG") is None
    first, *middle, last = (b"OggS" + page for page in content.split(b"OggS")[1:])
    for damaged, reason in (
        (first + b"".join(middle), "not marked as the end"),
        (first + middle[0] + b"".join(middle[2:]) + last, "page 3 follows page 1"),
        (content[:-1], "whole Ogg page"),
        (content[:-1] + bytes([content[-1] ^ 1]), "page 4 does not match its checksum"),
    ):
        path.write_bytes(damaged)
        assert reason in str(truncation(path, "OGG"))
    path.write_bytes(content + b"TAG" + bytes(125))  # what a tagger appends does no harm
    assert truncation(path, "OGG") is None


def test_an_mp3_with_a_tag_tells_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(1, np.random.default_rng(0), 3), RATE)
    tagged = b"ID3\4\0\0\0\0\2\0" + bytes(256) + path.read_bytes()
    path.write_bytes(tagged)
    assert truncation(path, "MP3") is None
    path.write_bytes(tagged[: len(tagged) * 97 // 100])
    assert "declares" in str(truncation(path, "MP3"))


@pytest.mark.parametrize("length", [-1, 2**63 - 1])
def test_what_was_written_to_a_pipe_declares_no_length(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.caf"
    soundfile.write(path, tone(1, np.random.default_rng(0), 1), RATE)
    content = bytearray(path.read_bytes())
    struct.pack_into(">q", content, content.index(b"data") + 4, length)
    path.write_bytes(content)
    assert truncation(path, "CAF") is None
