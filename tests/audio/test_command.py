from __future__ import annotations

from pathlib import Path

import pytest

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main, run
from spaudio.errors import ConfigError
from tests.fixtures.tiny_audio import make_class_folders

CALLS: list[dict[str, object]] = []


def listing(
    work: Path, *, source: str, share: float = 0.5, names: str | None = None, workers: int = 1
) -> SourceClips:
    CALLS.append({"source": source, "share": share, "names": names, "workers": workers})
    root = Path(source)
    clips = [
        SourceClip(path.relative_to(root).as_posix(), path.parent.name, "train", "g")
        for path in root.glob("*/*.flac")
    ]
    return SourceClips(root, clips)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    CALLS.clear()
    return [f"source={make_class_folders(tmp_path / 'source')}", f"folder={tmp_path / 'data'}"]


def test_values_are_numbers_words_or_null(arguments: list[str]) -> None:
    run("tiny", listing, [*arguments, "share=0.25", "names=null", "workers=3"])
    run("tiny", listing, [*arguments, "names=a=b"])
    assert [call["share"] for call in CALLS] == [0.25, 0.5]
    assert [call["names"] for call in CALLS] == [None, "a=b"]
    assert CALLS[0]["workers"] == 3


def test_workers_are_no_option_of_the_data(arguments: list[str]) -> None:
    first = run("tiny", listing, [*arguments, "workers=1"])
    assert run("tiny", listing, [*arguments, "workers=2"]).manifest == first.manifest
    assert run("tiny", listing, [*arguments, "share=0.1"]).manifest != first.manifest


def test_a_summary_comes_out(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main("tiny", listing, arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 clips (train 6), 3 labels, 0 skipped"
    assert Path(lines[1].removeprefix("manifest ")).is_file()


def test_bad_arguments_are_named(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'shard'; known: source, share"):
        run("tiny", listing, [*arguments, "shard=1"])
    with pytest.raises(ConfigError, match="'share'; expected key=value"):
        run("tiny", listing, [*arguments, "share"])
    with pytest.raises(ConfigError, match="source= is required"):
        run("tiny", listing, arguments[1:])


def test_an_error_is_one_message_and_code_1(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main("tiny", listing, [*arguments, "min_seconds=60"])
    message = str(caught.value.code)  # a text makes the exit code 1
    assert message.startswith("error: 6 of 6 clips cannot be used")


def test_an_interruption_tells_how_to_go_on(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(work: Path, *, source: str) -> SourceClips:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        main("tiny", interrupted, arguments)
    assert caught.value.code == 130
    assert "again to continue" in capsys.readouterr().err
