from pathlib import Path
from typing import Any

import pytest

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main, run
from spaudio.errors import ConfigError
from tests.fixtures.tiny_audio import make_class_folders

CALLS: list[tuple[float, str | None]] = []


def listing(
    work: Path, *, source: str, share: float = 0.5, names: str | None = None
) -> SourceClips:
    if names == "interrupted":
        raise KeyboardInterrupt
    CALLS.append((share, names))
    paths = (path.relative_to(source) for path in Path(source).glob("*/*.flac"))
    clips = [SourceClip(p.as_posix(), p.parts[0], "train", "g") for p in paths]
    return SourceClips(Path(source), clips)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    CALLS.clear()
    return [f"source={make_class_folders(tmp_path / 'source')}", f"folder={tmp_path / 'data'}"]


def test_values_are_numbers_words_or_null_and_bad_ones_are_named(arguments: list[str]) -> None:
    first = run("tiny", listing, [*arguments, "share=0.25", "names=null"])
    workers = run("tiny", listing, [*arguments, "share=0.25", "workers=3"])
    assert workers.manifest == first.manifest  # workers are no option of the data
    assert run("tiny", listing, [*arguments, "names=a=b"]).manifest != first.manifest
    assert CALLS == [(0.25, None), (0.25, None), (0.5, "a=b")]
    with pytest.raises(ConfigError, match=r"unknown key 'shard'; known: source, share"):
        run("tiny", listing, [*arguments, "shard=1"])
    with pytest.raises(ConfigError, match="'share'; expected key=value"):
        run("tiny", listing, [*arguments, "share"])
    with pytest.raises(ConfigError, match="source= is required"):
        run("tiny", listing, arguments[1:])


def test_it_ends_with_a_summary_or_one_message(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main("tiny", listing, arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 clips (train 6), 3 labels, 0 skipped"
    assert Path(lines[1].removeprefix("manifest ")).is_file()

    def ended(option: str) -> Any:
        with pytest.raises(SystemExit) as caught:
            main("tiny", listing, [*arguments, option])
        return caught.value.code

    # A text makes the exit code 1.
    assert ended("min_seconds=60").startswith("error: 6 of 6 clips cannot be used")
    assert ended("names=interrupted") == 130
    assert "again to continue" in capsys.readouterr().err
