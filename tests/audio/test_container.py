import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from spaudio.audio import decode, probe
from spaudio.audio.container import CONTAINERS, fault
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


@pytest.mark.parametrize(("form", "order"), [("WAV", "<"), ("AIFF", ">")])
def test_cut_files_with_many_tags_are_not_taken(tmp_path: Path, form: str, order: str) -> None:
    """libsndfile's list of chunks, which has the missing samples, ends after 2,047 characters."""
    path = tmp_path / "a"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), 8000, format=form)
    content = path.read_bytes()
    tags = 60 * (b"ANNO" + struct.pack(f"{order}I", 10) + b"some words")
    size = struct.pack(f"{order}I", len(content) + len(tags) - 8)
    path.write_bytes(content[:4] + size + content[8:12] + tags + content[12:])
    assert len(decode(path)[0]) == 16_000
    path.write_bytes(path.read_bytes()[:-12_000])
    with pytest.raises(AudioError, match=r"truncated \(header declares 32.* fetch it again"):
        decode(path)


def test_every_page_of_ogg_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, tone(1, np.random.default_rng(0), 3), RATE, format="OGG")
    content = path.read_bytes()
    assert fault(path, "OGG") is None
    first, *middle, last = (b"OggS" + page for page in content.split(b"OggS")[1:])
    for damaged, reason in (
        (first + b"".join(middle), "not marked as the end"),
        (first + middle[0] + b"".join(middle[2:]) + last, "page 3 follows page 1"),
        (content[:-1], "whole Ogg page"),
        (content[:-1] + bytes([content[-1] ^ 1]), "page 4 does not match its checksum"),
    ):
        path.write_bytes(damaged)
        assert reason in str(fault(path, "OGG"))
    path.write_bytes(content + b"TAG" + bytes(125))  # what a tagger appends does no harm
    assert fault(path, "OGG") is None


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_streams_of_ogg_are_refused(tmp_path: Path, subtype: str) -> None:
    path, content = tmp_path / "a.ogg", b""
    for seed in range(2):
        wave = tone(1, np.random.default_rng(seed), 1)
        soundfile.write(path, wave, RATE, format="OGG", subtype=subtype)
        content += path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(
        AudioError, match=r"several streams one after another, of which .*ffmpeg -i"
    ):
        decode(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "IMA_ADPCM"])
def test_samples_after_those_that_a_wav_declares_are_refused(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1, np.random.default_rng(0), 3 + 1 / RATE), RATE, subtype=subtype)
    whole, samples = path.read_bytes(), len(decode(path)[0])
    tag, at = b"LIST" + struct.pack("<I", 9000) + b"\xff" * 9000, whole.index(b"data") + 4
    length = struct.unpack_from("<I", whole, at)[0]
    unpadded = whole[: at + 4 + length]
    for content in (whole + tag, unpadded + tag, whole + bytes(4000)):
        path.write_bytes(content)
        assert len(decode(path)[0]) == samples
    changed = bytearray(whole)
    for in_all, declared in ((8, 0), (2**32 - 1, 2**32 - 1), (len(whole) - 8, length // 2)):
        struct.pack_into("<I", changed, 4, in_all)
        struct.pack_into("<I", changed, at, declared)
        path.write_bytes(changed)
        if declared != length // 2:  # as of writers to a pipe
            assert len(decode(path)[0]) >= samples
    with pytest.raises(AudioError, match=r"not a chunk follow them, .*-ignore_length 1"):
        decode(path)


def test_an_mp3_with_a_tag_tells_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(1, np.random.default_rng(0), 3), RATE)
    tagged = b"ID3\4\0\0\0\0\2\0" + bytes(256) + path.read_bytes()
    path.write_bytes(tagged)
    assert fault(path, "MP3") is None
    path.write_bytes(tagged[: len(tagged) * 97 // 100])
    assert "declares" in str(fault(path, "MP3"))
    cut, at = bytearray(tagged[: len(tagged) * 6 // 10]), tagged.index(b"Xing") + 7
    cut[at] &= ~2  # the flag of the number of bytes; that of frames is left
    for tail in (b"", b"TAG" + bytes(125)):
        path.write_bytes(cut + tail)
        with pytest.raises(AudioError, match=r"truncated \(header declares \d+ frames"):
            decode(path)


def without_first_frame(mp3: bytes) -> bytes:
    """Leaves out the frame without sound that declares the length."""
    return mp3[mp3.index(mp3[:2], 4) :]


def test_an_mp3_of_which_the_decoder_reads_a_part_is_refused(tmp_path: Path) -> None:
    path, loud = tmp_path / "a.mp3", np.random.default_rng(0).normal(size=20 * RATE) / 9
    soft = np.where(np.arange(len(loud)) % 999, 0, 1e-3)
    parts = []
    for wave in (np.concatenate([soft, loud]), np.concatenate([loud, soft])):
        soundfile.write(path, wave, RATE, bitrate_mode="VARIABLE")
        assert len(decode(path)[0]) >= len(wave)
        parts.append(path.read_bytes())
    for content in (parts[0] + parts[1], *map(without_first_frame, parts)):
        path.write_bytes(content)
        if soundfile.info(path).frames > 41 * RATE:  # the decoder may also guess too much
            assert len(decode(path)[0]) >= 2 * len(loud)
            continue
        with pytest.raises(
            AudioError, match=r"reads \d+\.\d s, but the file holds [48]0\.\d s: .*ffmpeg -i"
        ):
            decode(path)


@pytest.mark.parametrize("declares", [True, False])
def test_tags_of_an_mp3_are_no_sound(tmp_path: Path, declares: bool) -> None:
    path = tmp_path / "a.mp3"
    quality: dict[str, Any] = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
    soundfile.write(path, tone(1, np.random.default_rng(0), 3), RATE, **quality)
    content = path.read_bytes() if declares else without_first_frame(path.read_bytes())
    junk = np.random.default_rng(0).bytes(70_000)
    id3v2 = b"ID3\4\0\0\0\4\x22\x70" + junk
    ape = struct.pack("<8sIIII8x", b"APETAGEX", 2000, 332, 1, 0xA0 << 24) + junk[:300]
    ape += struct.pack("<8sIIII8x", b"APETAGEX", 2000, 332, 1, 0x80 << 24)
    for before, after in ((b"", ape + b"TAG" + bytes(125)), (id3v2, b""), (b"", junk[:900])):
        path.write_bytes(before + content + after)
        assert len(decode(path)[0]) == pytest.approx(3 * RATE, abs=2400)
        assert probe(path).seconds == pytest.approx(3, abs=0.3)


def test_a_tag_that_the_decoder_takes_for_sound_is_refused(tmp_path: Path) -> None:
    """Random bytes of some seeds hold what looks like the beginning of a frame."""
    path, refused = tmp_path / "a.mp3", ""
    quality: dict[str, Any] = {"bitrate_mode": "CONSTANT", "compression_level": 0.9}
    soundfile.write(path, tone(1, np.random.default_rng(0), 3), RATE, **quality)
    content = without_first_frame(path.read_bytes())
    for seed in range(60):
        cover = np.random.default_rng(seed).bytes(15_000 + 3_000 * seed)
        tag = struct.pack("<8sIIII8x", b"APETAGEX", 2000, len(cover) + 32, 1, 0x80 << 24)
        path.write_bytes(content + cover + tag)
        try:
            samples = len(decode(path)[0])
        except AudioError as error:
            refused += str(error)
        else:
            assert samples <= 1.2 * 3 * RATE
    assert re.search(r"reads 4.\d s, but the file holds 3.\d s", refused)


@pytest.mark.parametrize("length", [-1, 2**63 - 1])
def test_what_was_written_to_a_pipe_declares_no_length(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.caf"
    soundfile.write(path, tone(1, np.random.default_rng(0), 1), RATE)
    content = bytearray(path.read_bytes())
    struct.pack_into(">q", content, content.index(b"data") + 4, length)
    path.write_bytes(content)
    assert fault(path, "CAF") is None
