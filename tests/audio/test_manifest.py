import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spaudio.audio import Clip, manifest_hash, read_manifest, write_manifest
from spaudio.audio.manifest import class_names
from spaudio.errors import DataError

CLIP = Clip("a/0.wav", "hum", "train", "g0", 1.25, 8000)
CLIPS = [CLIP, Clip("b/ü \udcff.wav", "hiss", "test", "g1", 1 / 3, 44100, fold=5)]


def lines(**changes: Any) -> str:
    record = dataclasses.asdict(CLIP) | changes
    return json.dumps({key: value for key, value in record.items() if value != "absent"})


def test_round_trip_and_hash_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "m.jsonl"
    write_manifest(file, CLIPS)
    assert read_manifest(file) == CLIPS
    assert manifest_hash(CLIPS) == hashlib.sha256(file.read_bytes()).hexdigest()
    keys = [list(json.loads(line)) for line in file.read_text().splitlines()]
    assert keys == [sorted(field.name for field in dataclasses.fields(Clip))] * 2


def test_a_failed_write_leaves_the_old_manifest_and_nothing_else(tmp_path: Path) -> None:
    def failing() -> Iterator[Clip]:
        yield CLIP
        raise RuntimeError("stopped")

    write_manifest(tmp_path / "m.jsonl", CLIPS)
    with pytest.raises(RuntimeError):
        write_manifest(tmp_path / "m.jsonl", failing())
    assert read_manifest(tmp_path / "m.jsonl") == CLIPS
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object, got list"),
        (lines(label="absent"), "'label' is missing"),
        (lines(speaker="x"), "'speaker' is unknown"),
        (lines(label=3), "'label' is 3"),
        (lines(label=""), "'label' is ''"),
        (lines(path="/etc/a.wav"), "'path' is '/etc/a.wav'"),
        (lines(path="a/../../b.wav"), "relative to the audio root"),
        (lines(path="a\\b.wav"), "forward slashes"),
        (lines(split="dev"), "expected one of train, valid, test"),
        (lines(seconds=0), "'seconds' is 0"),
        (lines(seconds=float("nan")), "'seconds' is nan"),
        (lines(seconds=True), "'seconds' is True"),
        (lines(sample_rate=8000.0), "'sample_rate' is 8000.0"),
        (lines(sample_rate=-1), "'sample_rate' is -1"),
        (lines(fold="1"), "'fold' is '1'"),
        (lines(path="first.wav"), "repeats 'first.wav' of line 1"),
    ],
)
def test_a_bad_line_is_named_with_file_field_and_remedy(
    tmp_path: Path, line: str, reason: str
) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text(f"{lines(path='first.wav')}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_manifest(file)
    message = str(caught.value)
    assert message.startswith(f"{file}, line 3: ")
    assert reason in message
    assert "prepare the dataset again" in message
    with pytest.raises(DataError, match=r"none\.jsonl: manifest cannot be read"):
        read_manifest(tmp_path / "none.jsonl")


def test_blanks_around_commas_are_not_part_of_a_class() -> None:
    assert class_names("Bark, Wind chime", multi_label=True) == ["Bark", "Wind chime"]
    assert class_names("Bark, Wind chime", multi_label=False) == ["Bark, Wind chime"]
