"""Speech Commands as the twelve classes of v2-12."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.signal import correlate

from data_prep import speech_commands
from spaudio.audio import Prepared
from spaudio.errors import DataError
from tests.fixtures.tiny_audio import run_script
from tests.fixtures.tiny_corpora import (
    RATE,
    make_speech_commands,
    make_speech_commands_test_set,
    pack,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_speech_commands(tmp_path_factory.mktemp("words"))


def run(source: Path, data: Path, **options: Any) -> Prepared:
    return run_script(speech_commands.prepare, data, source=source, **options)


def test_v2_12_has_a_tenth_each_of_silence_and_unknown(folder: Path, tmp_path: Path) -> None:
    prepared = run(folder, tmp_path, task="v2-12")
    assert prepared.labels == ("yes", "no", "up", "_silence_", "_unknown_")
    assert (prepared.unused, run(folder, tmp_path / "35").unused) == ((), ("split_seed",))
    counts = Counter((c.split, c.label) for c in prepared.clips)
    for split, commands in (("train", 8), ("valid", 2), ("test", 2)):
        assert {counts[split, word] for word in ("yes", "no", "up")} == {commands}
        assert counts[split, "_silence_"] == counts[split, "_unknown_"] == -(-3 * commands // 10)
    unknown = [c for c in prepared.clips if c.label == "_unknown_"]
    assert {c.path.split("/")[1] for c in unknown} <= {"backward", "bed"}
    assert run(folder, tmp_path / "again", task="v2-12").hash == prepared.hash
    assert run(folder, tmp_path, task="v2-12", split_seed=1).hash != prepared.hash


def test_no_second_of_noise_is_in_two_splits(folder: Path, tmp_path: Path) -> None:
    prepared = run(folder, tmp_path, task="v2-12")
    for clip in (clip for clip in prepared.clips if clip.label == "_silence_"):
        name = clip.path.split("_", 1)[1]
        noise, _ = soundfile.read(folder / "_background_noise_" / name)
        cut, _ = soundfile.read(prepared.root / clip.path)
        place = np.argmax(correlate(noise, cut, "valid", method="fft"))
        first, last = {"train": (0, 8), "valid": (8, 9), "test": (9, 10)}[clip.split]
        assert first * RATE <= place <= last * RATE - len(cut)
        assert np.corrcoef(noise[place : place + len(cut)], cut)[0, 1] > 0.99


def test_the_test_archive_takes_the_place_of_the_list(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    pack(folder, both / "speech_commands_v0.02.tar.gz")
    test_set = make_speech_commands_test_set(tmp_path / "test_set")
    with pytest.raises(DataError, match=r"1 of 2 parts.*\n.*speech_commands_test_set_v0\.02"):
        run(both, tmp_path / "data", task="v2-12", test="archive")
    pack(test_set, both / "speech_commands_test_set_v0.02.tar.gz")
    prepared = run(both, tmp_path / "data", task="v2-12", test="archive")
    [said] = [line for line in prepared.warnings if "published test set" in line]
    assert "has 4,890 clips, this one 14; unpack it again" in said
    tested = Counter(c.label for c in prepared.clips if c.split == "test")
    # A clip of digital silence is what its label says, not a bad one.
    assert tested == {"yes": 3, "no": 3, "up": 3, "_unknown_": 3, "_silence_": 2}
    lists = run(folder, tmp_path / "data", task="v2-12")
    kept = [c for c in lists.clips if c.split != "test"]
    assert [c for c in prepared.clips if c.split != "test"] == kept
